"""Role relay and the clients of role shipper: two hosts, a central one, and MinIO behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fleet.conftest import BootHost
from tests.fleet.host import FleetHost
from tests.fleet.playbooks import Ansible, PlaybookRun
from tests.fleet.shipping import (
    BucketKey,
    make_spool,
    put_bundle,
    quick,
    traces,
    wait_for_bundle,
)
from tests.minio_server import MinioServer

# Several playbooks each, against three hosts.
pytestmark = [pytest.mark.minio, pytest.mark.timeout(1800)]

KEYS = "/etc/aod/relay_authorized_keys"

PLAYBOOK = """
- hosts: aod_relays
  roles:
    - aod.fleet.relay
    - aod.fleet.shipper
- hosts: aod_clients
  roles:
    - aod.fleet.shipper
"""
# For whole plays, so that role release knows from the first role on that nobody needs it.
REMOVAL = """
- hosts: aod_clients
  vars: {shipper_state: absent}
  roles:
    - aod.fleet.shipper
- hosts: aod_relays
  vars: {relay_state: absent, shipper_state: absent}
  roles:
    - aod.fleet.relay
    - aod.fleet.shipper
"""


class Central:
    """One relay, two clients, and the roles with an inventory of them."""

    def __init__(
        self, boot: BootHost, minio: MinioServer, release_directory: Path, directory: Path
    ) -> None:
        self.relay, *self.clients = (boot(name) for name in ("relay-1", "web-1", "web-2"))
        self.minio, self.bucket = minio, minio.create_bucket()
        self.directory = directory
        self._key = BucketKey(minio, self.bucket)
        self._release_directory = release_directory
        for name, text in (("site.yml", PLAYBOOK), ("uninstall.yml", REMOVAL)):
            (directory / name).write_text(text)
        for client in self.clients:
            make_spool(client)

    def run(self, *arguments: str, playbook: str = "site.yml", **variables: Any) -> PlaybookRun:
        """Against the relay and the clients of `clients`."""
        ansible = Ansible(
            self.directory, {"aod_relays": self._relays(), "aod_clients": self._web()}
        )
        given = {
            "release_directory": str(self._release_directory),
            "shipper_health_timeout_sec": 300,
            **variables,
        }
        return ansible.run(self.directory / playbook, *arguments, variables=given)

    def changed(self, run: PlaybookRun) -> set[str]:
        print(run.output)
        assert run.exit_code == 0
        return {host for host, count in run.changed().items() if count}

    def may_push(self, client: FleetHost) -> bool:
        check = client.run(
            "setpriv --reuid aod-shipper --regid aod --init-groups"
            " /opt/aod/current/bin/aod-shipper check",
            check=False,
        )
        accepted = f"knows this host's key, as {client.name}" in check.stdout
        assert accepted != ("does not accept this key" in check.stdout), check.stdout
        return accepted

    def _relays(self) -> dict[str, dict[str, Any]]:
        config = quick(self._key.destination, inbox="/var/lib/aod/inbox", scan_interval_sec=1)
        own = {"shipper_config": config, **self._key.variables()}
        return {"relay-1": {**self.relay.variables(), **own}}

    def _web(self) -> dict[str, dict[str, Any]]:
        destination = {"type": "relay", "host": "127.0.0.1", "port": self.relay.port}
        own = {"shipper_config": quick(destination), "shipper_relay_quota": {"min_free_mb": 0}}
        return {client.name: {**client.variables(), **own} for client in self.clients}


@pytest.fixture
def central(
    boot_host: BootHost, minio: MinioServer, release_directory: Path, tmp_path: Path
) -> Central:
    return Central(boot_host, minio, release_directory, tmp_path)


def test_clients_without_a_key_of_the_bucket_and_back(central: Central) -> None:
    hosts = [central.relay, *central.clients]
    before = [traces(host) for host in hosts]
    names = {host.name for host in hosts}

    assert central.changed(central.run("--check", "--diff")) == names
    assert [traces(host) for host in hosts] == before

    assert central.changed(central.run()) == names
    for client in central.clients:
        bundle = put_bundle(client, central.directory)
        wait_for_bundle(central.minio, central.bucket, client, bundle)
        assert client.run(["test", "-e", "/etc/aod/s3-credentials"], check=False).returncode == 1
    keys = central.relay.run(["cat", KEYS]).stdout
    assert keys.count("--min-free-mb 0") == 2
    assert central.changed(central.run()) == set()

    gone, central.clients = central.clients[1], central.clients[:1]
    named = central.run()
    assert central.changed(named) == set()
    assert "web-2: may still push" in named.output
    assert central.may_push(gone)
    assert central.changed(central.run(relay_purge_unknown=True)) == {"relay-1"}
    assert not central.may_push(gone)
    assert central.may_push(central.clients[0])

    central.clients.append(gone)
    assert central.changed(central.run()) == {"web-1"}
    for client in central.clients:
        client.run(["rm", "-r", "/var/log/aod"])
    assert central.changed(central.run(playbook="uninstall.yml", relay_remove_data=True)) == names
    assert [traces(host) - old for host, old in zip(hosts, before, strict=True)] == [set()] * 3
    assert central.changed(central.run(playbook="uninstall.yml", relay_remove_data=True)) == set()


def test_the_inbox_is_kept_while_bundles_wait_in_it(central: Central) -> None:
    central.run()
    central.relay.run(["systemctl", "stop", "aod-shipper"])
    put_bundle(central.clients[0], central.directory)
    waiting = "until ls /var/lib/aod/inbox/web-1/batches/*.done; do sleep 0.1; done"
    central.relay.run(["timeout", "100", "bash", "-c", waiting])

    refused = central.run(playbook="uninstall.yml", relay_remove_data=True)
    assert refused.exit_code != 0
    assert "1 bundles in /var/lib/aod/inbox are not in the bucket" in refused.output
    central.relay.run(waiting)

    assert central.run(playbook="uninstall.yml").exit_code == 0
    central.relay.run(waiting)
    assert central.relay.run(["test", "-e", KEYS], check=False).returncode == 1


# In the place of the shipper, which writes its receipts into the inbox at any time.
BUSY = """
mkdir /etc/systemd/system/aod-shipper.service.d
cat > /etc/systemd/system/aod-shipper.service.d/busy.conf <<'END'
[Service]
Type=simple
WatchdogSec=0
ExecStartPre=
ExecStart=
ExecStart=/bin/sh /run/busy
END
cat > /run/busy <<'END'
while mkdir -p /var/lib/aod/inbox/web-1; do : > /var/lib/aod/inbox/web-1/$((i=i+1)); done
END
systemctl daemon-reload; systemctl restart aod-shipper
"""


def test_nobody_writes_into_the_inbox_while_it_is_removed(central: Central) -> None:
    only = ("--limit", "aod_relays")
    assert central.run(*only).exit_code == 0
    central.relay.run(BUSY)
    central.relay.run(
        ["timeout", "60", "sh", "-c", "until ls /var/lib/aod/inbox/web-1/99; do :; done"]
    )
    removed = central.run(*only, playbook="uninstall.yml", relay_remove_data=True)
    assert removed.exit_code == 0, removed.output
    assert central.relay.run(["test", "-e", "/var/lib/aod"], check=False).returncode == 1


def test_an_sshd_that_would_not_read_it_is_left_as_it_was(central: Central) -> None:
    central.relay.run(["sed", "-i", "/^Include/d", "/etc/ssh/sshd_config"])
    before = traces(central.relay)
    run = central.run("--limit", "aod_relays")
    assert run.exit_code != 0
    assert "must Include" in run.output
    central.relay.run(["/usr/sbin/sshd", "-t"])
    assert not any("aod-relay.conf" in line for line in traces(central.relay) - before)


def test_a_relay_that_is_not_there_fails_each_client_with_the_reason(central: Central) -> None:
    early = central.run("--limit", "aod_clients")
    assert early.exit_code != 0
    assert "role relay comes first" in early.output

    central.relay.stop()
    for playbook in ("site.yml", "uninstall.yml"):
        late = central.run("--limit", "aod_clients", playbook=playbook)
        print(late.output)
        assert late.exit_code != 0
        assert "the relay relay-1: " in late.output
        for client in central.clients:
            assert (late.recap[client.name]["unreachable"], late.recap[client.name]["failed"]) == (
                0,
                1,
            )
    gone = central.run("--limit", "aod_clients", playbook="uninstall.yml", shipper_relay="")
    assert gone.exit_code == 0, gone.output
