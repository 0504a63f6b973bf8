"""A host that tries to leave its folder, or to change what was accepted: each rule, attacked.

The attacker has a key of its own that was let in; the victim is another host of the same relay.
Whatever is tried, the victim's folder and the attacker's own accepted bundles stay as they are,
and the attacker is told no in a clear line.
"""

import hashlib
import json
import os
import re
import socket
import subprocess
import syslog
import threading
from pathlib import Path

import pytest

from agent.service.stop_signal import StopSignal
from agent.storage.spool import ARCHIVE
from agent.storage.ulid import new_ulid
from shipper.destinations.relay_destination import RelayInbox
from shipper.destinations.relay_session import RelaySession
from shipper.relay.cli import main
from shipper.relay.host_folder import PARTIALS_KEPT, HostFolder, Usage
from shipper.relay.limits import MAX_FILES, Limits
from shipper.relay.refusal import Refusal
from shipper.relay.session import MAX_DOCUMENT, Session, read_document
from tests.relay_attacker import ID, Attacker
from tests.relay_server import (
    AOD_GID,
    AUTHORIZED_KEYS,
    CHECKOUT,
    INBOX,
    PROGRAM,
    RELAY_UID,
    ROOMY,
    RelayServer,
)
from tests.shipper_support import add_bundle, delivery_of, new_spool, wait_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def hosts(relay, tmp_path_factory):
    return Attacker(relay, tmp_path_factory.mktemp("attacker"))


@pytest.fixture
def attacker(hosts, tmp_path):
    hosts.start_over(tmp_path)
    yield hosts
    hosts.check()


COMMANDS = [
    *("", "sh", "sh -i", "ls -la /", "cat /etc/passwd", "id", "$(id)", "`id`", "python3 -c 1"),
    *("check; id", "check && id", "check|id", "check\nid", " check", "check ", "CHECK", "check x"),
    *("deliver", "deliver x", "deliver ../../etc/passwd", "deliver " + "A" * 10_000),
    *(f"deliver {ID.lower()}", f"deliver {ID} {ID}", f"deliver {ID}\n", f"deliver  {ID}"),
    *(f"deliver {ID}/../x", f"deliver 8{ID[1:]}", f"deliver {ID[:-1]}U", f"deliver {ID[:-1]}"),
    *(f"tombstone {ID};id", "tombstone", "heartbeat ../x", "deliver Ⅷ" + ID[1:]),
    *("receive --host x", "aod-relay hosts", "scp -t /", "scp -f /etc/passwd"),
    *("internal-sftp", "/usr/lib/openssh/sftp-server", "git-upload-pack x"),
    *("rsync --server -e.LsfxCIvu . /", "rsync --server --sender -e.LsfxCIvu . /etc/"),
    *("rsync --server --daemon", "rsync --server --daemon ..", "rsync --server --daemon . ; id"),
    *("rsync --server --daemon --config=/tmp/x .", "rsync --server --daemon . --log-file=/tmp/x"),
    *("/usr/bin/rsync --server --daemon .", "rsync  --server --daemon .", "rsync --daemon"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: ascii(text)[:40])
def test_no_other_command(attacker, command):
    attacker.ssh(*([command] if command else [])).assert_denied()


def test_a_command_forges_no_line_of_the_log(tmp_path, monkeypatch, capsys):
    lines = []
    monkeypatch.setattr(syslog, "syslog", lambda *told: lines.append(told[-1]))
    forged = f"check\nweb-18: accepted {ID}, 1 bytes\x1b[2J\x9b2J\udce2"
    assert Session(tmp_path, "web-17", ROOMY).serve(forged) == 1
    (line,) = lines
    assert line.isprintable()
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_rsync_as_such(attacker):
    source, got = attacker.file(), attacker.directory / "got"
    for arguments in (
        [source, "relay:/tmp/"],
        [source, f"relay:/opt/aod/inbox/{attacker.victim}/incoming/"],
        ["relay:/etc/passwd", got],
        [f"relay:/opt/aod/inbox/{attacker.victim}/batches/", got],
    ):
        said = attacker.rsync(*arguments)
        assert (said.status != 0, "this key may hand in bundles" in said.errors) == (True, True)
    assert not got.exists()


def test_scp_and_sftp(attacker):
    source = attacker.file()
    for arguments in (["-O", source, "relay:/tmp/x"], [source, "relay:/tmp/x"], ["relay:/x", "."]):
        assert attacker.copy("scp", *arguments).status != 0
    said = attacker.copy("sftp", "-b", "-", "relay", data=b"ls\n")
    assert said.status != 0
    attacker.ssh("sftp", options=("-s",)).assert_denied()


@pytest.mark.parametrize(
    "place",
    [
        *("incoming/../batches/", "incoming/../../VICTIM/incoming/", "incoming/../../VICTIM/"),
        *("incoming//opt/aod/inbox/VICTIM/incoming/", "incoming/./.././batches/"),
        *(
            "incoming/../rsyncd.conf",
            "incoming/../batches/OWN",
            "incoming/../../VICTIM/batches/THEIRS",
        ),
        *("incoming/sub/", f"incoming/sub/{ID}{ARCHIVE}", "incoming/.hidden", "incoming/x.done"),
        *(f"incoming/{ID}.done", f"incoming/{ID}{ARCHIVE}.x", f"incoming/{ID.lower()}{ARCHIVE}"),
        *("VICTIM/", "batches/", "/", "../", "/opt/aod/inbox/VICTIM/incoming/", "incoming%2f../"),
    ],
)
def test_no_other_place(attacker, place):
    for word, value in (
        ("VICTIM", attacker.victim),
        ("OWN", attacker.own.archive.name),
        ("THEIRS", attacker.theirs.archive.name),
    ):
        place = place.replace(word, value)
    said = attacker.rsync(attacker.file(), f"relay::{place}")
    # A place that leads out of the module means one in it: then it is the plain file's, or none.
    assert said.status != 0 or attacker.incoming() in ([f"{ID}{ARCHIVE}"], [])


@pytest.mark.parametrize(
    "name",
    ["evil", ".ssh", "rsyncd.conf", f"{ID}.done", f"{ID}.shipped", f"{ID}.tar", f"x{ARCHIVE}"],
)
def test_no_other_name(attacker, name):
    said = attacker.rsync(attacker.file(name), "relay::incoming/")
    assert said.status != 0, said.errors
    assert attacker.incoming() == []


OPTIONS = [
    *("--links", "--copy-links", "--safe-links", "--keep-dirlinks", "--hard-links", "--archive"),
    *(
        "--recursive",
        "--dirs",
        "--relative",
        "--mkpath",
        "--perms",
        "--times",
        "--owner",
        "--group",
    ),
    *("--devices", "--specials", "--write-devices", "--xattrs", "--acls", "--sparse"),
    *("--delete", "--delete-excluded", "--remove-source-files", "--force", "--existing"),
    *("--backup", "--backup-dir=../batches", "--suffix=.done", "--temp-dir=../batches"),
    *("--partial-dir=../batches", "--compare-dest=..", "--copy-dest=..", "--link-dest=../batches"),
    *("--delay-updates", "--checksum", "--compress", "--fuzzy", "--preallocate", "--ignore-times"),
    *("-M--log-file=../batches/x", "-M--super", "-M--fake-super", "-M--temp-dir=..", "-M--sender"),
    *("-M--backup-dir=..", "-M--copy-dest=..", "-M--links", "-M--delete", "-M--config=/tmp/x"),
    *("--iconv=utf8", "--usermap=*:0", "--chown=0:0", "--super", "--fake-super", "--files-from=x"),
    *("--block-size=1", "--size-only", "--update", "--max-alloc=0", "--verbose", "--stats"),
]


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_are_no_plain_upload_change_nothing(attacker, option):
    """Refused by the relay, or without a meaning for it; then the file is a plain part."""
    attacker.file("x", b"")
    said = attacker.rsync(option, attacker.file(), "relay::incoming/")
    if said.status == 0:
        assert attacker.incoming() in ([], [f"{ID}{ARCHIVE}"])
    else:
        assert said.errors
        assert attacker.incoming() == []


@pytest.mark.parametrize("option", ["--links", "--recursive", "--delete -r", "--perms", "--times"])
def test_the_options_that_matter_are_refused_in_words(attacker, option):
    said = attacker.rsync(*option.split(), attacker.file(), "relay::incoming/")
    assert "configured to refuse" in said.errors


def test_directories_are_not_taken(attacker):
    directory = attacker.directory / f"{ID}{ARCHIVE}"
    directory.mkdir()
    said = attacker.rsync_that_hides("-d", "-d", directory, "relay::incoming/")
    assert "configured to refuse" not in said.errors
    assert attacker.incoming() == []


def test_a_directory_that_got_in_all_the_same_goes(attacker):
    planted = attacker.folder / "incoming" / f"{ID}{ARCHIVE}"
    planted.mkdir()
    os.chown(planted, RELAY_UID, AOD_GID)
    archive = {"file": planted.name, "size": 0, "sha256": hashlib.sha256().hexdigest()}
    manifest = json.dumps({"id": ID, "archive": archive}).encode()
    attacker.ssh(f"deliver {ID}", data=manifest).assert_denied()
    attacker.rsync("--append-verify", attacker.file(content=b"x"), "relay::incoming/")
    assert planted.read_bytes() == b"x"


def test_nothing_can_be_read(attacker):
    got = attacker.directory / "got"
    for place in ("incoming/", "incoming/*", "incoming/../batches/", f"incoming/{ID}{ARCHIVE}"):
        said = attacker.rsync("--append-verify", f"relay::{place}", f"{got}/")
        assert (said.status != 0, said.output) == (True, "")
    listed = attacker.rsync("relay::")
    assert "incoming" not in listed.output
    assert attacker.rsync("--list-only", "relay::incoming/").output == ""
    assert not got.exists()


def test_nothing_can_be_removed(attacker):
    """An empty directory with --delete takes away all there is elsewhere."""
    attacker.client._session.push(attacker.bundle().archive)
    assert len(attacker.incoming()) == 1
    empty = attacker.directory / "empty"
    empty.mkdir()
    for options in (["-r", "--delete"], ["-d", "--delete"], ["-r", "--delete-excluded", "--force"]):
        said = attacker.rsync(*options, f"{empty}/", "relay::incoming/")
        assert "configured to refuse" in said.errors
    assert len(attacker.incoming()) == 1


def test_links_are_not_taken(attacker):
    link = attacker.directory / f"{ID}{ARCHIVE}"
    link.symlink_to(f"../../{attacker.victim}/batches/{attacker.theirs.archive.name}")
    for options in (["-l"], ["-a"], ["-lK"], []):
        attacker.rsync(*options, link, "relay::incoming/")
        assert attacker.incoming() == []


@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["symlink", "hard link"])
def test_a_link_that_got_in_all_the_same_leads_nowhere(attacker, make):
    """As if another hole had let it in: neither rsync nor the commit follows it."""
    planted = attacker.folder / "incoming" / f"{attacker.theirs.id}{ARCHIVE}"
    target = attacker.victims_folder / "batches" / attacker.theirs.archive.name
    attacker.before.pop(target)  # the link count is part of what a hard link changes
    before = target.read_bytes(), target.stat().st_ino
    make(target, planted)
    said = attacker.ssh(f"deliver {attacker.theirs.id}", data=attacker.theirs.manifest)
    assert said.refusal["kind"] in ("denied", "bundle")
    if not planted.is_symlink() and not planted.exists():
        make(target, planted)
    evil = attacker.file(planted.name, b"x" * 1000)
    attacker.rsync("--append-verify", evil, "relay::incoming/")
    assert not planted.is_symlink()
    assert (target.read_bytes(), target.stat().st_ino, target.stat().st_nlink) == (*before, 1)
    attacker.before = attacker.state()


def test_an_accepted_bundle_is_not_overwritten(attacker):
    name = attacker.own.archive.name
    attacker.rsync("--append-verify", attacker.file(name, b"forged"), "relay::incoming/")
    manifest = json.loads(attacker.own.manifest)
    manifest["archive"].update(size=6, sha256=hashlib.sha256(b"forged").hexdigest())
    said = attacker.ssh(f"deliver {attacker.own.id}", data=json.dumps(manifest).encode())
    said.assert_denied()
    assert "nothing accepted is ever changed" in said.refusal["refused"]


def test_a_bundle_is_not_accepted_while_it_is_written(attacker):
    """Else a session that has it open could go on to write into what was accepted."""
    source = attacker.file(content=os.urandom(3 * MIB))
    limited = ["--append-verify", "--bwlimit=300", source, "relay::incoming/"]
    writing = threading.Thread(target=attacker.rsync, args=limited)
    writing.start()
    part = attacker.folder / "incoming" / source.name
    wait_for(lambda: part.exists() and part.stat().st_size, "the upload is under way")
    said = attacker.ssh(f"deliver {ID}", data=b"{}")
    assert (said.status, said.refusal["kind"]) == (1, "busy")
    attacker.victim_client.ask_who_am_i()
    writing.join()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-W", "127.0.0.1:PORT"], "forwarding failed|prohibited"),
        (["-R", "0:127.0.0.1:PORT", "-o", "ExitOnForwardFailure=yes"], "forwarding failed"),
        (["-w", "0:0", "-o", "ExitOnForwardFailure=yes"], "[Tt]unnel|prohibited"),
    ],
    ids=["-W", "-R", "-w"],
)
def test_no_forwarding(attacker, options, told):
    with socket.create_server(("127.0.0.1", 0)) as inner:
        port = str(inner.getsockname()[1])
        said = attacker.ssh(
            *([] if "-W" in options else ["check"]),
            options=tuple(option.replace("PORT", port) for option in options),
        )
        assert (said.status, bool(re.search(told, said.errors))) == (255, True), said.errors
        inner.setblocking(False)
        with pytest.raises(BlockingIOError):
            inner.accept()


def test_no_terminal(attacker):
    assert "PTY allocation request failed" in attacker.ssh("check", options=("-tt",)).errors


def test_the_shipped_sshd_configuration_confines_a_line_without_restrict(tmp_path, relay):
    text = (CHECKOUT / "config/aod-relay.sshd.conf").read_text()
    lines = text.replace("/etc/aod/relay_authorized_keys", str(AUTHORIZED_KEYS))
    assert lines != text
    with RelayServer(tmp_path / "relay", lines) as careless:
        key = careless.make_key("web-17")
        command = f"{PROGRAM} receive --inbox {INBOX} --host web-17 --min-free-mb 0"
        careless.let_in(key, f'command="{command}"')
        client = RelayInbox(careless.config(key), StopSignal())
        delivery = delivery_of(add_bundle(new_spool(tmp_path / "spool")))
        client.deliver(delivery)
        ssh = RelaySession(careless.config(key), StopSignal(), 0)._ssh()
        for options, told in (
            (["-W", f"127.0.0.1:{relay.port}"], "forwarding failed|prohibited"),
            (["-tt"], "PTY allocation request failed"),
        ):
            ended = subprocess.run([*ssh, *options, "relay"], capture_output=True, check=False)
            assert re.search(told, ended.stderr.decode())


@pytest.mark.parametrize(
    "setting",
    [
        *("PYTHONPATH=/tmp", "PYTHONSTARTUP=/tmp/x", "LD_PRELOAD=/tmp/x.so", "BASH_ENV=/tmp/x"),
        *("SSH_ORIGINAL_COMMAND=check", "RSYNC_CONFIG=/tmp/x", "PATH=/tmp", "HOME=/tmp"),
        *("LC_ALL=$(id)", "LANG=/../../tmp", "LC_MESSAGES=`id`", "LC_PAPER=" + "x" * 10_000),
    ],
    ids=lambda text: text[:30],
)
def test_the_environment_is_the_relays(attacker, setting):
    options = ("-o", f"SetEnv={setting}")
    assert attacker.ssh("check", options=options).refusal["host"] == attacker.name
    attacker.ssh("id", options=options).assert_denied()


@pytest.mark.parametrize("command", [f"deliver {ID}", f"tombstone {ID}", "heartbeat"])
def test_documents_have_a_limit(attacker, command):
    for data in (b" " * (MAX_DOCUMENT + 1), b"[" * (8 * MIB)):
        said = attacker.ssh(command, data=data)
        said.assert_denied()
        assert "bytes at most" in said.refusal["refused"]
    assert not (attacker.folder / "heartbeat.json").exists()


def test_an_endless_document_is_cut(attacker):
    with Path("/dev/zero").open("rb") as zeros:
        argv = [*attacker.ssh_argv, "relay", f"deliver {ID}"]
        ended = subprocess.run(argv, stdin=zeros, capture_output=True, check=False, timeout=120)
    assert json.loads(ended.stdout)["kind"] == "denied"


def test_a_document_that_never_comes_is_not_waited_for():
    reader, writer = os.pipe()
    try:
        os.write(writer, b"{")
        with pytest.raises(Refusal, match="did not come in time"):
            read_document(reader, 0.05)
    finally:
        os.close(reader)
        os.close(writer)


def manifests():
    archive = {"file": f"{ID}{ARCHIVE}", "size": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
    yield b"", "no JSON"
    yield b"no JSON", "no JSON"
    yield b"[" * 100_000, "no JSON"
    yield b"\xff\xfe", "no JSON"
    yield b"[]", "no JSON object"
    for wrong in ({"id": "../x"}, {"id": new_ulid()}, {"id": 1}):
        yield json.dumps({"archive": archive, **wrong}).encode(), "its id is another"
    for wrong, problem in (
        ({"file": "../../x"}, "archive.file"),
        ({"size": -1}, "no size"),
        ({"size": True}, "no size"),
        ({"size": 4.0}, "no size"),
        ({"sha256": "../" + "a" * 61}, "no sha256"),
        ({"sha256": None}, "no sha256"),
        ({"size": 5}, "4 bytes, the manifest says 5"),
        ({"sha256": "0" * 64}, "another sha256"),
    ):
        yield json.dumps({"id": ID, "archive": {**archive, **wrong}}).encode(), problem


@pytest.mark.parametrize(("manifest", "problem"), list(manifests()))
def test_a_manifest_that_does_not_fit(attacker, manifest, problem):
    attacker.rsync("--append-verify", attacker.file(), "relay::incoming/")
    said = attacker.ssh(f"deliver {ID}", data=manifest)
    assert (said.status, said.refusal["kind"]) == (1, "bundle")
    assert problem in said.refusal["refused"]


@pytest.mark.parametrize("verb", ["deliver", "tombstone"])
def test_an_id_without_a_day_is_not_taken(attacker, verb):
    """The central shipper could make no key of it, and would meet it again in each round."""
    late = "7" + "Z" * 25
    attacker.rsync("--append-verify", attacker.file(f"{late}{ARCHIVE}"), "relay::incoming/")
    archive = {"size": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
    manifest = {"id": late, "archive": {"file": f"{late}{ARCHIVE}", **archive}}
    said = attacker.ssh(f"{verb} {late}", data=json.dumps(manifest).encode())
    assert (said.status, said.refusal["kind"]) == (1, "bundle")
    assert "no day" in said.refusal["refused"]


def test_a_manifest_without_its_archive(attacker):
    said = attacker.ssh(f"deliver {attacker.theirs.id}", data=attacker.theirs.manifest)
    assert (said.status, said.refusal["kind"]) == (1, "missing")


def test_a_tombstone_buries_no_bundle(attacker):
    data = json.dumps({"id": attacker.own.id}).encode()
    assert attacker.ssh(f"tombstone {attacker.own.id}", data=data).status == 0
    wrong = attacker.ssh(f"tombstone {ID}", data=data)
    assert (wrong.status, wrong.refusal["kind"]) == (1, "bundle")


def test_a_file_without_end(relay, tmp_path):
    attacker = Attacker(relay, tmp_path, Limits(max_bundle_mb=1, min_free_mb=0))
    huge = tmp_path / f"{ID}{ARCHIVE}"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    said = attacker.rsync("--append-verify", huge, "relay::incoming/")
    assert said.status != 0
    wait_for(lambda: attacker.incoming() == [], "the relay removes what it had got of it")
    attacker.check()


def test_a_flood_of_files(relay, tmp_path):
    """Costs the attacker its own quota, and nobody else anything."""
    attacker = Attacker(relay, tmp_path, Limits(max_host_mb=1, min_free_mb=0))
    files = [attacker.file(f"{new_ulid()}{ARCHIVE}", b"x" * 500) for _ in range(1000)]
    said = attacker.rsync("--append-verify", "--bwlimit=100", *files, "relay::incoming/")
    assert said.status != 0
    attacker.check()
    attacker.victim_client.deliver(attacker.bundle())
    attacker.rsync("--append-verify", files[0], "relay::incoming/")
    assert len(attacker.incoming()) <= PARTIALS_KEPT + 1


def test_the_number_of_files_has_a_limit(tmp_path):
    tmp_path.joinpath("web-17").mkdir()
    folder = HostFolder(tmp_path, "web-17")
    with pytest.raises(Refusal, match="files at the relay"):
        ROOMY.check(folder, Usage(0, MAX_FILES))
    ROOMY.check(folder, Usage(0, MAX_FILES - 1))


@pytest.mark.parametrize("host", ["../victim", "/etc", "", "a b", "-x", "victim/../x"])
def test_a_line_made_by_hand_with_a_bad_name_opens_nothing(tmp_path, host, capsys, monkeypatch):
    monkeypatch.setenv("SSH_ORIGINAL_COMMAND", "check")
    assert main(["receive", f"--host={host}", "--inbox", str(tmp_path)]) == 2
    assert "cannot be used" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_it_does_not_run_as_root(tmp_path, capsys):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert main(["receive", "--host=web-17", "--inbox", str(Path("/tmp"))]) == 2
    assert "as root" in capsys.readouterr().err
