"""Role shipper on a booted host, from nothing to a bundle in MinIO, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fleet.conftest import BootHost
from tests.fleet.host import FleetHost
from tests.fleet.playbooks import Ansible, PlaybookRun
from tests.fleet.shipping import (
    BucketKey,
    main_process,
    make_spool,
    put_bundle,
    quick,
    traces,
    wait_for_bundle,
)
from tests.minio_server import MinioServer, free_port

pytestmark = pytest.mark.minio

PLAYBOOK = """
- hosts: aod_clients
  roles:
    - aod.fleet.shipper
"""


class Shipped:
    """A host of its own and a bucket, and the role with their variables."""

    def __init__(
        self, host: FleetHost, minio: MinioServer, release_directory: Path, directory: Path
    ) -> None:
        self.host = host
        self.minio = minio
        self.bucket = minio.create_bucket()
        self.key = BucketKey(minio, self.bucket)
        self.directory = directory
        self.config = quick(self.key.destination)
        self.variables: dict[str, Any] = {"release_directory": str(release_directory)}
        self._playbook = directory / "shipper.yml"
        self._playbook.write_text(PLAYBOOK)
        self._ansible = Ansible(directory, {"aod_clients": {host.name: host.variables()}})
        make_spool(host)

    def run(self, *arguments: str, **variables: Any) -> PlaybookRun:
        config = {"shipper_config": self.config, **self.key.variables()}
        return self._ansible.run(
            self._playbook, *arguments, variables={**self.variables, **config, **variables}
        )

    def changed(self, run: PlaybookRun) -> int:
        print(run.output)
        assert run.exit_code == 0
        return run.changed()[self.host.name]

    def read(self, path: str) -> str:
        return self.host.run(["cat", path]).stdout


@pytest.fixture
def shipped(
    boot_host: BootHost, minio: MinioServer, release_directory: Path, tmp_path: Path
) -> Shipped:
    return Shipped(boot_host("web-1"), minio, release_directory, tmp_path)


def test_from_nothing_to_the_bucket_and_back(shipped: Shipped) -> None:
    host, before = shipped.host, traces(shipped.host)

    assert shipped.changed(shipped.run("--check", "--diff")) > 0
    assert traces(host) == before

    first = shipped.run("-vvv", "--diff")
    assert shipped.changed(first) > 0
    bundle = put_bundle(host, shipped.directory)
    wait_for_bundle(shipped.minio, shipped.bucket, host, bundle)
    journal = host.run(["journalctl", "--output=export", "--no-pager"]).stdout
    assert "Invoked with" in journal
    for secret in shipped.key.parts:
        assert secret not in first.output
        assert secret not in journal
    modes = host.run(["stat", "-c", "%n %U %G %a", "/etc/aod/s3-credentials"]).stdout
    assert modes == "/etc/aod/s3-credentials root root 600\n"
    process = main_process(host)
    assert shipped.changed(shipped.run()) == 0
    assert main_process(host) == process

    assert shipped.changed(shipped.run(shipper_state="absent")) > 0
    assert bundle in host.run(["ls", "/var/log/aod/batches"]).stdout
    owners = {line.split(":")[0] for line in traces(host) - before}
    assert owners == {"aod", "aod-shipper"}, "those who own the bundles stay, and nothing else"
    host.run(["rm", "-r", "/var/log/aod"])
    assert shipped.changed(shipped.run(shipper_state="absent")) > 0
    assert traces(host) - before == set()
    assert shipped.changed(shipped.run(shipper_state="absent")) == 0


def test_a_new_key_reaches_the_running_service(shipped: Shipped) -> None:
    assert shipped.changed(shipped.run()) > 0
    process, shipped.key = main_process(shipped.host), BucketKey(shipped.minio, shipped.bucket)
    assert shipped.changed(shipped.run()) == 1
    assert main_process(shipped.host) != process
    wait_for_bundle(
        shipped.minio, shipped.bucket, shipped.host, put_bundle(shipped.host, shipped.directory)
    )


def test_what_cannot_work_never_replaces_what_does(shipped: Shipped) -> None:
    assert shipped.changed(shipped.run()) > 0
    config, process = shipped.read("/etc/aod/shipper.yaml"), main_process(shipped.host)

    wrong = shipped.run("--diff", shipper_config={**shipped.config, "scan_interval_sec": "often"})
    assert wrong.exit_code != 0
    assert "scan_interval_sec" in wrong.output

    value = "AAAAsecretBBBBsecret"
    for name in ("aws_secret_access_key", "Session-Token", "password"):
        destination = {**shipped.config["destination"], name: value}
        leaking = shipped.run("-vvv", "--diff", shipper_config={"destination": destination})
        assert leaking.exit_code != 0
        assert "shipper_s3_secret_access_key" in leaking.output
        assert value not in leaking.output

    assert shipped.read("/etc/aod/shipper.yaml") == config
    assert main_process(shipped.host) == process


def test_a_store_that_is_down_is_told_and_fails_nothing(shipped: Shipped) -> None:
    shipped.config["destination"]["endpoint_url"] = f"http://127.0.0.1:{free_port()}"
    run = shipped.run()
    assert shipped.changed(run) > 0
    assert "nothing listens at" in run.output
    assert main_process(shipped.host) > 0


def test_settings_are_merged_and_a_destination_replaces_the_shipped_one(shipped: Shipped) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    shipped.config |= {"retry": {"attempts": 7}}
    assert shipped.changed(shipped.run(shipper_ca_bundle=pem)) > 0
    text = shipped.read("/etc/aod/shipper.yaml")
    assert "\nspool: /var/log/aod\n" in text
    assert "attempts: 7\n" in text
    assert "max_pause_sec: 300\n" in text
    assert "ca_bundle: /etc/aod/ca.pem\n" in text
    assert "path: /var/lib/aod/bucket" not in text
    assert shipped.read("/etc/aod/ca.pem") == pem
