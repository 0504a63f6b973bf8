"""The guest as central host, set up as docs/relay.md says: another host's bundle gets into the
bucket through its sshd and its aod-shipper.service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.storage.spool import DONE, SHIPPED
from tests.minio_server import MinioServer
from tests.relay_server import make_key
from tests.shipper_support import add_bundle, new_spool, run_shipper, wait_for
from tests.vm import relay_manual
from tests.vm.install import Installation
from tests.vm.machine import VirtualMachine
from tests.vm.service import SHIPPER, ship_to_bucket

HOST = "db-1"
INBOX = "/var/lib/aod/inbox"
SHIPPER_COMMAND = "/opt/aod/current/bin/aod-shipper"
TMPFILES = "/etc/tmpfiles.d/aod-relay.conf"
METRICS = "/var/lib/prometheus/node-exporter"
CONFIG = f"""\
inbox: {INBOX}
heartbeat_interval_sec: 2
metrics:
  file: {METRICS}/aod-shipper.prom
"""
MAY_WRITE_METRICS = f"""
install -d -o aod-shipper {METRICS}
install -d /etc/systemd/system/{SHIPPER}.d
printf '[Service]\\nReadWritePaths={METRICS}\\n' > /etc/systemd/system/{SHIPPER}.d/metrics.conf
systemctl daemon-reload
"""
AS_IT_WAS = f"""
systemctl stop {SHIPPER}
rm -r /etc/systemd/system/{SHIPPER}.d {METRICS}
systemctl daemon-reload
"""


@dataclass(frozen=True)
class CentralHost:
    """The guest; ``complaints`` are what its set-up said on standard error."""

    vm: VirtualMachine
    bucket: str
    complaints: str

    def stat(self, path: str) -> str:
        """Mode, owner and group."""
        return self.vm.run(["stat", "-c", "%a %U %G", path]).stdout.strip()


@pytest.fixture(scope="module")
def central(
    vm: VirtualMachine, installation: Installation, minio: MinioServer
) -> Iterator[CentralHost]:
    bucket = minio.create_bucket()
    complaints = relay_manual.set_up_central_host(vm)
    vm.run(MAY_WRITE_METRICS)
    ship_to_bucket(vm, minio, bucket, CONFIG)
    vm.run(["systemctl", "start", SHIPPER])
    yield CentralHost(vm, bucket, complaints)
    vm.run(AS_IT_WAS)
    relay_manual.remove(vm)


def client_config(central: CentralHost, directory: Path) -> Path:
    """Of a host that the relay lets in, on this side."""
    vm = central.vm
    key = make_key(directory / "id")
    relay_manual.authorize(vm, HOST, key.with_suffix(".pub").read_text())
    host_key = vm.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout
    known_hosts = directory / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{vm.ssh_port} {host_key}")
    config = directory / "shipper.yaml"
    config.write_text(
        f"spool: {directory}/spool\nprefix: lab\n"
        f"destination:\n  type: relay\n  host: 127.0.0.1\n  port: {vm.ssh_port}\n"
        f"  identity_file: {key}\n  known_hosts_file: {known_hosts}\n"
    )
    return config


def test_the_shipped_files_set_the_relay_up(central: CentralHost) -> None:
    vm = central.vm
    assert not [
        line for line in central.complaints.splitlines() if not line.startswith("Creating ")
    ]
    assert vm.run(["id", "-nG", "aod-relay"]).stdout.split() == ["aod-relay", "aod"]
    assert vm.run(["passwd", "-S", "aod-relay"]).stdout.split()[1] == "L"
    assert central.stat(INBOX) == "2770 aod-relay aod"

    who = "user=aod-relay,host=client,addr=192.0.2.1"
    relay = set(vm.run(["/usr/sbin/sshd", "-T", "-C", who]).stdout.splitlines())
    assert {
        "authorizedkeysfile /etc/aod/relay_authorized_keys",
        "authenticationmethods publickey",
        "disableforwarding yes",
        "permittty no",
        "permituserrc no",
        "clientaliveinterval 15",
    } <= relay
    root = vm.run(["/usr/sbin/sshd", "-T", "-C", who.replace("aod-relay", "root")]).stdout
    assert "permittty yes" in root.splitlines()


def test_a_bundle_of_another_host_goes_through(
    central: CentralHost, minio: MinioServer, tmp_path: Path
) -> None:
    config = client_config(central, tmp_path)
    spool = new_spool(tmp_path / "spool")
    bundle = add_bundle(spool, b"evidence" * 100_000, host=HOST)
    marker, sha256 = bundle.done.read_bytes(), bundle.manifest()["archive"]["sha256"]
    checked = run_shipper("check", "--config", config)
    assert f"knows this host's key, as {HOST}" in checked.stdout
    sent = run_shipper("once", "--config", config)
    assert sent.returncode == 0, sent.stderr

    def keys() -> list[str]:
        return [key for key in minio.keys(central.bucket) if bundle.id in key]

    wait_for(lambda: len(keys()) == 2, "archive and manifest in the bucket")
    manifest, archive = keys()
    receipt = json.loads(spool.path(bundle.id, SHIPPED).read_bytes())
    assert (receipt["key"], receipt["sha256"]) == (archive, sha256)
    assert archive.startswith(f"lab/{HOST}/")
    assert (
        minio.read(central.bucket, manifest) == marker == spool.path(bundle.id, DONE).read_bytes()
    )
    assert minio.read(central.bucket, archive) == b"evidence" * 100_000
    # What is delivered leaves the inbox, all but its receipt.
    left = ["sh", "-c", f'cd {INBOX}/{HOST}/batches && test "$(echo *)" = {bundle.id}{SHIPPED}']
    central.vm.wait_until(left)


def test_its_figures_and_its_status_tell_of_it(central: CentralHost) -> None:
    vm, file = central.vm, f"{METRICS}/aod-shipper.prom"
    vm.wait_until(f"grep -q '^aod_shipper_up 1$' {file}")
    assert central.stat(file) == "644 aod-shipper aod"
    hosts = vm.run([SHIPPER_COMMAND, "status", "--hosts"]).stdout
    assert HOST in hosts


def test_parts_that_nobody_resumes_go_and_nothing_else(central: CentralHost) -> None:
    part, bundle = f"{INBOX}/old-1/incoming/part", f"{INBOX}/old-1/batches/bundle"
    there = f"test -e {bundle}; test -e {part}"
    central.vm.run(f"""
install -d -m 2770 -o aod-relay -g aod $(dirname {part}) $(dirname {bundle})
runuser -u aod-relay -- touch {part} {bundle}
systemd-tmpfiles --clean {TMPFILES}
{there}
sed 's/ 1d$/ 0/' {TMPFILES} > /root/at-once.conf
systemd-tmpfiles --clean /root/at-once.conf
rm /root/at-once.conf
""")
    assert central.vm.run(there, check=False).returncode == 1
    assert central.stat(bundle) == "644 aod-relay aod"
