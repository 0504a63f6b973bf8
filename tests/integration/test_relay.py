"""The hop to a central host: real rsync over a real ssh, what arrives and what is answered."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.spool import ARCHIVE, DONE, EVICTED, Spool
from agent.storage.ulid import new_ulid
from shipper.destinations import relay_session
from shipper.destinations.document import Document
from shipper.destinations.relay_destination import RelayInbox
from shipper.faults import BundleFault, DestinationFault, HostFault, NetworkFault
from shipper.relay.host_folder import PARTIALS_KEPT, STALE_SEC
from shipper.relay.limits import Limits
from tests.cutting_proxy import CuttingProxy
from tests.relay_server import AOD_GID, RELAY_UID, ROOMY, SHIPPER_UID
from tests.shipper_support import add_bundle, delivery_of, new_spool, wait_for

MIB = 1 << 20


class Host:
    """A client of the relay: its spool, its key, and what the relay has of it."""

    def __init__(self, relay, directory, limits=ROOMY):
        self.relay = relay
        self.name = f"web-{secrets.token_hex(4)}"
        self.spool = new_spool(directory / self.name)
        self.key = relay.authorize(self.name, limits)
        self.folder = relay.inbox / self.name
        self.inbox = Spool(self.folder)
        self.stop = StopSignal()

    def client(self, bytes_per_second=0, **changes):
        config = self.relay.config(self.key, **changes)
        return RelayInbox(config, self.stop, bytes_per_second)

    def bundle(self, content=b"evidence", **changes):
        return delivery_of(add_bundle(self.spool, content, **changes))

    def arrived(self):
        return [bundle.id for bundle in self.inbox.finished()]

    def archive(self, bundle_id):
        return self.inbox.path(bundle_id, ARCHIVE).read_bytes()

    def partial(self, bundle_id):
        return self.folder / "incoming" / f"{bundle_id}{ARCHIVE}"

    def incoming(self):
        return sorted(path.name for path in (self.folder / "incoming").iterdir())


@pytest.fixture
def host(relay, tmp_path):
    return Host(relay, tmp_path)


def size_of(path):
    return path.stat().st_size if path.exists() else 0


@pytest.mark.parametrize("size", [0, 1, 100_000, 40 * MIB])
def test_a_bundle_arrives_as_it_is(host, size):
    delivery = host.bundle(os.urandom(size))
    host.client().deliver(delivery)
    assert host.arrived() == [delivery.id]
    assert hashlib.sha256(host.archive(delivery.id)).hexdigest() == delivery.sha256
    assert host.inbox.path(delivery.id, DONE).read_bytes() == delivery.manifest
    assert host.incoming() == []
    assert (host.folder / "accepted").exists()


def test_the_central_shipper_alone_may_read_and_remove(host):
    delivery = host.bundle()
    host.client().deliver(delivery)
    for path in (host.folder, host.folder / "batches", host.folder / "incoming"):
        assert (oct(path.stat().st_mode & 0o7777), path.stat().st_gid) == ("0o2770", AOD_GID)
    archive, done = (host.inbox.path(delivery.id, suffix) for suffix in (ARCHIVE, DONE))
    for path in (archive, done):
        status = path.stat()
        assert (oct(status.st_mode & 0o7777), status.st_uid) == ("0o640", RELAY_UID)
        assert status.st_gid == AOD_GID
    batches = os.open(host.folder / "batches", os.O_RDONLY)
    try:
        as_shipper = ["setpriv", f"--reuid={SHIPPER_UID}", f"--regid={AOD_GID}", "--clear-groups"]

        def do(program, path):
            command = [*as_shipper, program, f"/proc/self/fd/{batches}/{path.name}"]
            return subprocess.run(
                command, pass_fds=[batches], cwd="/", capture_output=True, check=True
            ).stdout

        assert do("cat", archive) == b"evidence"
        do("rm", done)
    finally:
        os.close(batches)
    assert not done.exists()


def test_twice_is_accepted_and_changes_nothing(host):
    delivery, client = host.bundle(), host.client()
    client.deliver(delivery)
    before = [path.stat() for path in sorted((host.folder / "batches").iterdir())]
    client.deliver(delivery)
    host.client().deliver(delivery)
    after = [path.stat() for path in sorted((host.folder / "batches").iterdir())]
    assert [(one.st_ino, one.st_mtime_ns) for one in after] == [
        (one.st_ino, one.st_mtime_ns) for one in before
    ]
    assert host.incoming() == []


def test_a_bundle_that_was_shipped_on_is_accepted_again(host):
    delivery = host.bundle()
    host.client().deliver(delivery)
    host.inbox.write_receipt(delivery.id, {"id": delivery.id, "sha256": delivery.sha256})
    for suffix in (DONE, ARCHIVE):
        host.inbox.path(delivery.id, suffix).unlink()
    host.client().deliver(delivery)
    assert host.arrived() == []


def test_what_was_accepted_is_never_changed(host, tmp_path):
    delivery = host.bundle(b"the first")
    host.client().deliver(delivery)
    forger = Spool(tmp_path / "forged")
    forger.prepare()
    forged = forger.path(delivery.id, ARCHIVE)
    temporary = forged.with_name("temporary")
    temporary.write_bytes(b"the other")
    digest = hashlib.sha256(b"the other").hexdigest()
    archive = {"file": forged.name, "size": 9, "sha256": digest}
    manifest = {"id": delivery.id, "host": "web-17", "anomaly": "x", "archive": archive}
    second = delivery_of(forger.publish(delivery.id, temporary, manifest))
    with pytest.raises(DestinationFault, match="nothing accepted is ever changed"):
        host.client().deliver(second)
    assert host.archive(delivery.id) == b"the first"
    assert host.inbox.path(delivery.id, DONE).read_bytes() == delivery.manifest


def test_a_cut_upload_goes_on_where_it_ended(host, relay):
    delivery = host.bundle(os.urandom(30 * MIB))
    with CuttingProxy(relay.port, upload_limit=20 * MIB) as proxy:
        with known_as(host, relay, proxy.port) as client, pytest.raises(NetworkFault):
            client.deliver(delivery)
        assert proxy.cuts
    wait_for(lambda: host.partial(delivery.id).exists(), "the relay keeps the part")
    with CuttingProxy(relay.port) as proxy:
        with known_as(host, relay, proxy.port) as client:
            client.deliver(delivery)
        assert proxy.uploaded < 20 * MIB
    assert host.arrived() == [delivery.id]
    assert hashlib.sha256(host.archive(delivery.id)).hexdigest() == delivery.sha256


class known_as:  # noqa: N801 - reads as a word in `with`
    """A client that goes through ``port``, where the relay's host key is known too."""

    def __init__(self, host, relay, port):
        known = host.spool.root / f"known-{port}"
        key = relay.config(host.key).known_hosts_file.read_text().split(" ", 1)[1]
        known.write_text(f"[127.0.0.1]:{port} {key}")
        self._client = host.client(port=port, known_hosts_file=known)

    def __enter__(self):
        return self._client

    def __exit__(self, *_):
        pass


def deliver_in_thread(client, delivery):
    """The thread, and a list that gets its fault."""
    faults = []

    def deliver():
        try:
            client.deliver(delivery)
        except Exception as fault:
            faults.append(fault)

    thread = threading.Thread(target=deliver)
    thread.start()
    return thread, faults


@pytest.mark.parametrize("victim", ["rsync --append-verify", "rsync --server", "aod-relay"])
def test_killed_in_the_middle_of_an_upload(host, victim):
    delivery = host.bundle(os.urandom(8 * MIB))
    thread, faults = deliver_in_thread(host.client(bytes_per_second=MIB), delivery)
    partial = host.partial(delivery.id)
    wait_for(lambda: size_of(partial) > MIB, "the upload is under way")
    for pid in processes_with(victim, str(partial.parent.parent.name)):
        os.kill(pid, signal.SIGKILL)
    thread.join()
    assert [isinstance(fault, NetworkFault) for fault in faults] == [True]
    assert host.arrived() == []
    host.client().deliver(delivery)
    assert hashlib.sha256(host.archive(delivery.id)).hexdigest() == delivery.sha256
    assert host.incoming() == []


def test_what_is_left_of_an_rsync_holds_the_folder(host):
    """It may still write: nothing is accepted before it has ended."""
    delivery = host.bundle(os.urandom(8 * MIB))
    client = host.client(bytes_per_second=MIB, read_timeout_sec=3)
    thread, _ = deliver_in_thread(client, delivery)
    wait_for(lambda: size_of(host.partial(delivery.id)) > MIB, "the upload is under way")
    left = processes_with("rsync --server", host.name)
    try:
        for pid in left:
            os.kill(pid, signal.SIGSTOP)
        for pid in processes_with("aod-relay receive", host.name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        thread.join()
        with pytest.raises(NetworkFault, match="another session"):
            host.client().deliver(host.bundle())
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    host.client().deliver(delivery)
    assert host.arrived() == [delivery.id]


def processes_with(words, also):
    """Pids whose command line has both in it: ours alone, each host's name is used once."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if entry.name.isdecimal() and words in line and also in line:
            found.append(int(entry.name))
    assert found, f"no process {words}"
    return found


def test_stop_ends_an_upload_and_its_children(host):
    delivery = host.bundle(os.urandom(8 * MIB))
    thread, faults = deliver_in_thread(host.client(bytes_per_second=MIB), delivery)
    wait_for(lambda: size_of(host.partial(delivery.id)) > MIB, "the upload is under way")
    children = processes_with("rsync --append-verify", delivery.id)
    host.stop.set()
    thread.join()
    assert [fault.message for fault in faults] == ["the shipper was told to stop"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)


def test_an_upload_without_end_is_ended_and_goes_on(host, monkeypatch):
    monkeypatch.setattr(relay_session, "_LONGEST_PUSH_SEC", 2.5)
    delivery, client = host.bundle(os.urandom(4 * MIB)), host.client(bytes_per_second=MIB)
    with pytest.raises(NetworkFault, match="does not answer in time"):
        client.deliver(delivery)
    assert 0 < size_of(host.partial(delivery.id)) < delivery.size
    for _ in range(10):
        with contextlib.suppress(NetworkFault):
            client.deliver(delivery)
            break
    assert hashlib.sha256(host.archive(delivery.id)).hexdigest() == delivery.sha256


def test_a_lost_acknowledgement_is_harmless(host, relay):
    delivery = host.bundle(os.urandom(8 * MIB))
    done = host.inbox.path(delivery.id, DONE)
    with CuttingProxy(relay.port, swallow_reply=done.exists) as proxy:
        with known_as(host, relay, proxy.port) as client:
            with pytest.raises(NetworkFault):
                client.deliver(delivery)
            assert host.arrived() == [delivery.id]
            stamp = done.stat().st_ino
            proxy._swallow_reply = lambda: False
            sent = proxy.uploaded
            client.deliver(delivery)
        assert proxy.uploaded - sent < MIB, "nothing is sent again"
    host.client().deliver(delivery)  # as after a restart: the bytes go again, and change nothing
    assert (done.stat().st_ino, host.arrived(), host.incoming()) == (stamp, [delivery.id], [])


def test_a_part_with_other_bytes_is_sent_anew(host):
    client = host.client()
    client.deliver(host.bundle())
    for garbage in (os.urandom(MIB), os.urandom(3 * MIB), os.urandom(2 * MIB)):
        delivery = host.bundle(os.urandom(2 * MIB))
        partial = host.partial(delivery.id)
        partial.write_bytes(garbage)
        os.chown(partial, RELAY_UID, AOD_GID)
        client.deliver(delivery)
        assert hashlib.sha256(host.archive(delivery.id)).hexdigest() == delivery.sha256


def test_a_bundle_that_is_not_what_its_manifest_says(host):
    delivery = host.bundle(os.urandom(1000))
    delivery.archive.chmod(0o640)
    delivery.archive.write_bytes(os.urandom(1000))
    with pytest.raises(BundleFault, match="another sha256"):
        host.client().deliver(delivery)
    assert (host.arrived(), host.incoming()) == ([], [])


def test_a_link_in_the_spool_is_not_sent(host, tmp_path):
    delivery = host.bundle()
    (tmp_path / "secret").write_bytes(b"evidence")
    delivery.archive.unlink()
    delivery.archive.symlink_to(tmp_path / "secret")
    with pytest.raises(BundleFault, match="not a plain file"):
        host.client().deliver(delivery)


def test_documents(host):
    client, bundle_id = host.client(), new_ulid()
    tombstone = json.dumps({"id": bundle_id, "reason": "size"}).encode()
    heartbeat = [json.dumps({"beat": number}).encode() for number in (1, 2)]
    for _ in range(2):
        client.put_document(Document("tombstone", bundle_id, "k", tombstone))
    assert host.inbox.path(bundle_id, EVICTED).read_bytes() == tombstone
    assert host.inbox.undelivered_tombstones() == [bundle_id]
    for content in heartbeat:
        client.put_document(Document("heartbeat", host.name, "k", content))
        assert (host.folder / "heartbeat.json").read_bytes() == content
    delivery = host.bundle()
    client.deliver(delivery)
    late = json.dumps({"id": delivery.id}).encode()
    client.put_document(Document("tombstone", delivery.id, "k", late))
    assert not host.inbox.path(delivery.id, EVICTED).exists()
    assert host.arrived() == [delivery.id]


def test_a_bundle_that_was_given_up_does_not_come_back(host):
    delivery, client = host.bundle(), host.client()
    tombstone = json.dumps({"id": delivery.id}).encode()
    client.put_document(Document("tombstone", delivery.id, "k", tombstone))
    with pytest.raises(DestinationFault, match="was given up"):
        client.deliver(delivery)
    assert host.arrived() == []


def test_a_full_relay(relay, tmp_path):
    full = Host(relay, tmp_path, Limits(min_free_mb=1 << 30))
    delivery = full.bundle()
    with pytest.raises(NetworkFault, match=r"relay's disk has \d+ MiB free") as caught:
        full.client().deliver(delivery)
    assert "shipped" in caught.value.remedy
    tombstone = Document("tombstone", delivery.id, "k", b'{"id": "%s"}' % delivery.id.encode())
    for refused in (full.client().ask_who_am_i, lambda: full.client().put_document(tombstone)):
        with pytest.raises(NetworkFault, match="MiB free"):
            refused()
    full.key = relay.authorize(f"{full.name}-with-room")
    assert full.client().ask_who_am_i()["room_mb"] > 0


def test_a_host_over_its_quota_waits_until_the_relay_has_shipped(relay, tmp_path):
    host = Host(relay, tmp_path, Limits(max_host_mb=2, min_free_mb=0))
    first, second = host.bundle(os.urandom(2 * MIB - 100)), host.bundle()
    client = host.client()
    client.deliver(first)
    with pytest.raises(NetworkFault, match="its quota is 2 MiB"):
        client.deliver(second)
    for suffix in (DONE, ARCHIVE):
        host.inbox.path(first.id, suffix).unlink()
    client.deliver(second)
    assert host.arrived() == [second.id]


def test_a_quota_ends_an_upload_on_its_way(relay, tmp_path):
    host = Host(relay, tmp_path, Limits(max_host_mb=2, min_free_mb=0))
    delivery = host.bundle(os.urandom(40 * MIB))
    with pytest.raises(NetworkFault, match="its quota is 2 MiB"):
        host.client(bytes_per_second=8 * MIB).deliver(delivery)
    assert size_of(host.partial(delivery.id)) < delivery.size


def test_a_bundle_that_is_too_large(relay, tmp_path):
    host = Host(relay, tmp_path, Limits(max_bundle_mb=1, min_free_mb=0))
    delivery = host.bundle(os.urandom(3 * MIB))
    with pytest.raises(DestinationFault, match="larger than") as caught:
        host.client().deliver(delivery)
    assert "--max-bundle-mb" in caught.value.remedy
    wait_for(lambda: host.incoming() == [], "the relay removes what it had got of it")
    host.client().deliver(host.bundle(os.urandom(MIB)))


def test_another_session_of_the_host(host):
    client = host.client()
    client.deliver(host.bundle())
    held = os.open(host.folder / "incoming", os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(NetworkFault, match="another session"):
            client.deliver(host.bundle())
        client.put_document(Document("heartbeat", host.name, "k", b"{}"))
        assert client.ask_who_am_i()["host"] == host.name
    finally:
        os.close(held)
    client.deliver(host.bundle())


def test_many_threads_take_turns(host):
    client = host.client()
    deliveries = [host.bundle(os.urandom(1000)) for _ in range(4)]
    started = [deliver_in_thread(client, delivery) for delivery in deliveries]
    for thread, _ in started:
        thread.join()
    assert [faults for _, faults in started] == [[]] * 4
    assert host.arrived() == sorted(delivery.id for delivery in deliveries)


def test_what_killed_sessions_left_goes(host):
    client = host.client()
    client.deliver(host.bundle())
    stale = [host.partial(new_ulid()) for _ in range(2)]
    young = [host.partial(new_ulid()) for _ in range(PARTIALS_KEPT + 2)]
    now = time.time()
    for path in (*stale, *young):
        path.touch()
    for path in stale:
        os.utime(path, (now, now - STALE_SEC - 60))
    for age, path in enumerate(young):
        os.utime(path, (now, now - age))
    orphan = host.inbox.path(new_ulid(), ARCHIVE)
    orphan.touch()
    client.deliver(host.bundle())
    assert host.incoming() == sorted(path.name for path in young[:PARTIALS_KEPT])
    assert not orphan.exists()


def test_check_says_who_and_how_much(host):
    answer = host.client().ask_who_am_i()
    assert (answer["host"], answer["room_mb"]) == (host.name, ROOMY.max_host_mb)
    assert answer["max_bundle_mb"] == ROOMY.max_bundle_mb


def write(path, text):
    path.write_text(text)
    return path


def test_a_changed_host_key(host, relay, tmp_path):
    other = relay.make_key(f"host-key-{host.name}").with_suffix(".pub").read_text()
    known = write(tmp_path / "known", f"[127.0.0.1]:{relay.port} {other}")
    with pytest.raises(DestinationFault, match="another than the known one"):
        host.client(known_hosts_file=known).deliver(host.bundle())
    assert not host.folder.exists()


def test_an_unknown_host_key(host, tmp_path):
    for known in (write(tmp_path / "known", ""), tmp_path / "missing"):
        with pytest.raises(DestinationFault, match="host key is not known") as caught:
            host.client(known_hosts_file=known).deliver(host.bundle())
        assert "known_hosts_file" in caught.value.remedy
    assert not host.folder.exists()


def test_a_key_that_was_not_let_in(host, relay):
    host.key = relay.make_key(f"stranger-{host.name}")
    with pytest.raises(DestinationFault, match="does not accept this key") as caught:
        host.client().deliver(host.bundle())
    assert "aod-relay authorize" in caught.value.remedy


def test_keys_that_cannot_be_used(host, tmp_path):
    garbage = write(tmp_path / "garbage", "no key\n")
    garbage.chmod(0o600)
    for path in (tmp_path / "missing", garbage):
        with pytest.raises(HostFault, match="private key cannot be used"):
            host.client(identity_file=path).deliver(host.bundle())
    host.key.chmod(0o644)
    with pytest.raises(HostFault, match="open to others"):
        host.client().deliver(host.bundle())
    with pytest.raises(HostFault, match="cannot be told to ssh"):
        host.client(identity_file=tmp_path / "it's").deliver(host.bundle())


def test_odd_names_of_the_client_s_files(host, relay, tmp_path):
    odd = tmp_path / "100% of %h, mine"
    odd.mkdir()
    config = relay.config(host.key)
    key = write(odd / "key", host.key.read_text())
    key.chmod(0o600)
    known = write(odd / "known hosts", config.known_hosts_file.read_text())
    delivery = host.bundle()
    host.client(identity_file=key, known_hosts_file=known).deliver(delivery)
    assert host.arrived() == [delivery.id]


def test_no_such_name(host):
    with pytest.raises(NetworkFault, match="name is not resolved"):
        host.client(host="relay.invalid").deliver(host.bundle())


def test_nobody_listens(host):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(NetworkFault, match="cannot be reached"):
        host.client(port=port).deliver(host.bundle())


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_a_relay_that_says_nothing_is_noticed(host, greeting):
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def greet():
            connection, _ = silent.accept()
            connection.sendall(greeting)
            connection.recv(1 << 20)
            held.append(connection)

        held = []
        thread = threading.Thread(target=greet)
        thread.start()
        port = silent.getsockname()[1]
        client = host.client(port=port, connect_timeout_sec=1, read_timeout_sec=2)
        with pytest.raises(NetworkFault):
            client.deliver(host.bundle())
        thread.join()
        held[0].close()


def test_programs_that_are_missing(host, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostFault, match="no program ssh"):
        host.client().deliver(host.bundle())
    (tmp_path / "ssh").symlink_to("/usr/bin/ssh")
    with pytest.raises(HostFault, match="no program rsync"):
        host.client().deliver(host.bundle())


def test_what_answers_is_no_relay(host, relay):
    key = relay.make_key(f"shell-{host.name}")
    relay.let_in(key, 'restrict,command="echo hello"')
    host.key = key
    with pytest.raises(DestinationFault, match="no aod-relay: hello"):
        host.client().ask_who_am_i()
    with pytest.raises(DestinationFault, match=r"no aod-relay|not set up"):
        host.client().deliver(host.bundle())


def test_a_relay_that_answers_nonsense(host, relay):
    key = relay.make_key(f"odd-{host.name}")
    answer = '{"protocol": 1, "host": "\\u001b[2J", "room_mb": "\\u009b2J", "max_bundle_mb": "x"}'
    command = f"case $SSH_ORIGINAL_COMMAND in rsync*) ;; *) printf %s '{answer}' ;; esac"
    relay.let_in(key, 'restrict,command="' + command.replace('"', '\\"') + '"')
    host.key = key
    findings = list(host.client().check())
    assert {one.step for one in findings} == {"relay", "name", "room"}
    assert all(one.detail.isprintable() for one in findings)
    with pytest.raises(NetworkFault, match="session broke"):
        host.client().deliver(host.bundle())
    with pytest.raises(DestinationFault, match="acknowledged another bundle"):
        host.client()._claim(host.bundle())


def test_another_release_answers(host, relay):
    key = relay.make_key(f"newer-{host.name}")
    relay.let_in(key, 'restrict,command="echo \'{\\"protocol\\": 2}\'"')
    host.key = key
    with pytest.raises(DestinationFault, match="speaks protocol 2"):
        host.client().ask_who_am_i()


def test_a_relay_that_is_not_set_up(host, relay):
    key = relay.make_key(f"early-{host.name}")
    relay.let_in(key, 'restrict,command="/opt/aod/none/bin/aod-relay receive"')
    host.key = key
    for attempt in (host.client().ask_who_am_i, lambda: host.client().deliver(host.bundle())):
        with pytest.raises(DestinationFault, match="not set up"):
            attempt()
