"""A host of a fleet: its bundles get into the bucket through a relay, and it has no key of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.storage.spool import ARCHIVE, DONE, SHIPPED, Spool
from tests.minio_server import MinioServer
from tests.relay_server import RelayServer, why_not
from tests.requirements import skip_or_fail
from tests.s3_support import credentials_file
from tests.shipper_support import new_spool, run_shipper, shipper_command, wait_for
from tests.vm import relay_manual
from tests.vm.conftest import MOUNT_POINT
from tests.vm.guest import DIE_WITH_PARENT
from tests.vm.install import Installation
from tests.vm.machine import HOST_ADDRESS, VirtualMachine
from tests.vm.service import COMMAND, KEY_FILE, SHIPPER, SHIPPER_CONFIG, Service, run_named
from tests.vm.smb_share import SmbShare

DELAY_MS = 800
HOST = "lab"
BATCHES = "/var/log/aod/batches"
SHIPPER_COMMAND = "/opt/aod/current/bin/aod-shipper"
# What `aod-shipper status` says, once it is that and exits so.
STATUS = f"""
text=$({SHIPPER_COMMAND} status) && exit=0 || exit=$?
echo "$text"
grep -q '^state  *{{state}}' <<< "$text" && test $exit = {{exit}}
"""
AS_SHIPPER = ("runuser", "-u", "aod-shipper", "--", SHIPPER_COMMAND)

#: Tenths, as `systemd-analyze security` counts: what the unit had before it knew of relays.
EXPOSURE = 13

# After a fault nothing is tried again for about an hour, unless `retry` says so.
GUEST_CONFIG = """\
spool: /var/log/aod
prefix: lab
scan_interval_sec: 7200
start_jitter_sec: 0
retry: {{attempts: 1, initial_pause_sec: 7200, max_pause_sec: 7200}}
destination:
  type: relay
  host: {host}
  port: {port}
"""


@dataclass(frozen=True)
class Way:
    """From the guest's services over the relay's sshd and its shipper into ``service.bucket``."""

    relay: RelayServer
    service: Service
    central_config: Path

    @property
    def description(self) -> str:
        return f"relay aod-relay@{HOST_ADDRESS}:{self.relay.port}"

    def has(self, bundle_id: str) -> bool:
        """Whether the bundle is in the bucket, with its manifest."""
        return any(bundle_id in key for key in self.service.bundle_keys())


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayServer]:
    if reason := why_not():
        skip_or_fail(f"no relay: {reason}")
    with RelayServer(tmp_path_factory.mktemp("relay")) as server:
        yield server


@pytest.fixture(scope="module")
def way(
    vm: VirtualMachine,
    installation: Installation,
    minio: MinioServer,
    relay: RelayServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Way]:
    directory = tmp_path_factory.mktemp("central")
    config = GUEST_CONFIG.format(host=HOST_ADDRESS, port=relay.port)
    service = Service(vm, minio, config)
    key = directory / "lab.pub"
    key.write_text(
        relay_manual.set_up_host(vm, f"[{HOST_ADDRESS}]:{relay.port}", relay.host_key.read_text())
    )
    relay.admit(HOST, key)
    central = directory / "central.yaml"
    central.write_text(
        f"inbox: {relay.inbox}\nheartbeat_interval_sec: 2\n"
        + to_bucket(minio, service.bucket, directory)
    )
    with subprocess.Popen([*DIE_WITH_PARENT, *shipper_command("run", "--config", central)]) as run:
        try:
            service.start()
            yield Way(relay, service, central)
            service.stop()
        finally:
            run.terminate()
    relay_manual.remove(vm)


def to_bucket(minio: MinioServer, bucket: str, directory: Path) -> str:
    """Configuration of a shipper on this side, whose own spool lies in ``directory``."""
    key = credentials_file(directory / "key", minio.access_key, minio.secret_key)
    return (
        f"spool: {directory}/spool\nprefix: lab\nscan_interval_sec: 2\nstart_jitter_sec: 0\n"
        f"destination:\n  type: s3\n  bucket: {bucket}\n  endpoint_url: {minio.endpoint_url}\n"
        f"  region: us-east-1\n  credentials_file: {key}\n"
    )


def copy_of_bundle(vm: VirtualMachine, bundle_id: str, spool: Spool) -> None:
    """The guest's files of a bundle, without its receipt."""
    for suffix in (ARCHIVE, DONE):
        vm.get(f"{BATCHES}/{bundle_id}{suffix}", spool.path(bundle_id, suffix))


def test_a_slow_mount_is_the_same_in_the_bucket_as_on_the_direct_way(
    vm: VirtualMachine, share: SmbShare, way: Way, minio: MinioServer, tmp_path: Path
) -> None:
    with share.server_delay(DELAY_MS):
        run_named(vm, f"dd if=/dev/zero of={MOUNT_POINT}/slow bs=4k count=8 oflag=direct")
    bundle = way.service.wait_for_bundle("slow_commands")
    bundle_id = bundle.manifest["id"]
    way.service.wait_until_idle()

    spool, direct_bucket = new_spool(tmp_path / "spool"), minio.create_bucket()
    copy_of_bundle(vm, bundle_id, spool)
    direct = tmp_path / "direct.yaml"
    direct.write_text(to_bucket(minio, direct_bucket, tmp_path))
    once = run_shipper("once", "--config", direct)
    assert once.returncode == 0, once.stderr
    keys = [key for key in minio.keys(way.service.bucket) if bundle_id in key]
    assert minio.keys(direct_bucket) == keys
    for key in keys:
        assert minio.read(direct_bucket, key) == minio.read(way.service.bucket, key)
    marker = spool.path(bundle_id, DONE).read_bytes()
    assert minio.read(way.service.bucket, bundle.key.replace(".tar.zst", ".json")) == marker
    assert bundle.sha256 == bundle.manifest["archive"]["sha256"]

    receipt = json.loads(vm.run(["cat", f"{BATCHES}/{bundle_id}{SHIPPED}"]).stdout)
    assert receipt["destination"] == way.description
    assert (receipt["key"], receipt["sha256"]) == (bundle.key, bundle.sha256)


def test_the_host_has_no_key_of_the_bucket(
    vm: VirtualMachine, way: Way, minio: MinioServer
) -> None:
    pid = vm.run(["systemctl", "show", "-P", "MainPID", SHIPPER]).stdout.strip()
    places = ["/etc/aod", f"/run/credentials/{SHIPPER}", f"/proc/{pid}/environ"]
    search = ["grep", "-rlF", "-f", "/dev/stdin", *places]
    found = vm.run(search, check=False, input_text=f"{minio.access_key}\n{minio.secret_key}\n")
    assert (found.returncode, found.stdout, found.stderr) == (1, "", "")
    assert vm.run(["ls", KEY_FILE], check=False).returncode != 0


def test_the_host_lives_in_the_view_of_the_fleet(vm: VirtualMachine, way: Way) -> None:
    version = vm.run([SHIPPER_COMMAND, "--version"]).stdout.split()[-1]

    def entry() -> dict[str, object]:
        told = run_shipper("fleet", "--json", "--config", way.central_config)
        return next((h for h in json.loads(told.stdout)["hosts"] if h["host"] == HOST), {})

    wait_for(entry, "a heartbeat of the guest")
    assert entry()["shipper_version"] == version
    assert entry()["silent"] is False


@pytest.mark.parametrize(
    ("identity", "told"),
    [
        ("key", ("knows this host's key, as lab", "ready")),
        ("stranger", ("does not accept this key", "aod-relay authorize", "NOT READY")),
        ("roots", ("the private key cannot be used", "Permission denied", "NOT READY")),
    ],
)
def test_check_by_hand_tells_what_is_missing(
    vm: VirtualMachine, way: Way, identity: str, told: tuple[str, ...]
) -> None:
    tried = "/etc/aod/relay/tried.yaml"
    vm.run(f"""
cd /etc/aod/relay
test -e stranger || ssh-keygen -q -t ed25519 -N '' -f stranger
install -m 0600 stranger roots
chown aod-shipper stranger
(cat {SHIPPER_CONFIG}; echo '  identity_file: /etc/aod/relay/{identity}') > {tried}
""")
    done = vm.run([*AS_SHIPPER, "check", "--config", tried], check=False)
    assert all(words in done.stdout for words in told), done.stdout + done.stderr
    assert done.returncode == int("NOT READY" in told)


def test_while_the_relay_is_away_bundles_wait_and_the_cause_is_told(
    vm: VirtualMachine, way: Way
) -> None:
    way.relay.stop()
    capture = [COMMAND, "capture", "--target-pid", "1", "--duration", "1", "--json"]
    bundle_id = Path(json.loads(vm.run(capture).stdout)["path"]).name.partition(".")[0]
    paused = vm.wait_until(STATUS.format(state="PAUSED", exit=1), timeout=180)
    assert "fault          network: the relay cannot be reached" in paused
    assert "sshd on the central host" in paused
    assert "pending        1 (" in paused
    waits = vm.run(["systemctl", "show", "-P", "StatusText", SHIPPER]).stdout
    assert "the relay cannot be reached" in waits

    way.relay.start()
    assert not way.has(bundle_id)
    vm.run([SHIPPER_COMMAND, "retry"])
    idle = vm.wait_until(STATUS.format(state="idle", exit=0), timeout=180)
    assert "fault" not in idle
    wait_for(lambda: way.has(bundle_id), "the bundle in the bucket")


def test_the_sandbox_is_as_tight_as_it_was_and_kills_nothing(vm: VirtualMachine, way: Way) -> None:
    vm.run(["systemd-analyze", "security", "--no-pager", f"--threshold={EXPOSURE}", SHIPPER])
    killed = vm.run("journalctl -k --no-pager | grep 'type=1326'", check=False)
    assert killed.stdout == "", "by the unit's SystemCallFilter"
