"""The installed services in the guest, and the bundles they bring to a bucket on the host."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from tests.minio_server import MinioServer
from tests.vm.machine import HOST_ADDRESS, VirtualMachine

AGENT, SHIPPER = "aod-agent.service", "aod-shipper.service"
COMMAND = "/opt/aod/current/bin/aod-agent"
SHIPPER_CONFIG, KEY_FILE = "/etc/aod/shipper.yaml", "/etc/aod/s3-credentials"

# Commands take up to 40 ms in an emulated guest, so the limit lies well above.
AGENT_CONFIG = """\
watch_interval_sec: 10
aod_output_dir: /var/log/aod
watcher:
  batch_max_wait_sec: 0.05
  incident_quiet_sec: 15
guardian:
  anomalies:
    slow_commands:
      type: latency
      tool: smbslower
      acceptable_count: 3
      default_threshold_ms: 400
      exclude_commands: [SMB2_CHANGE_NOTIFY, SMB2_LOCK, SMB2_ECHO]
    failed_commands:
      type: error
      tool: smbiosnoop
      mode: trackonly
      acceptable_count: 3
      track_codes: [EACCES, EIO]
"""


@dataclass(frozen=True)
class Bundle:
    """One object of the bucket, opened: ``files`` by name, ``manifest`` from beside it."""

    key: str
    data: bytes
    manifest: dict[str, Any]
    files: dict[str, bytes]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def events(self) -> np.ndarray:
        return np.load(io.BytesIO(self.files["events.npy"]))

    @property
    def everything(self) -> str:
        """All that can be read in it."""
        texts = [content.decode("utf-8", "replace") for content in self.files.values()]
        return "\n".join([*texts, json.dumps(self.manifest)])

    @property
    def worst(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files["worst_events.jsonl"].splitlines()]


class Service:
    """Agent and shipper as systemd services of the guest; MinIO runs on the host.

    Bundles go straight into `bucket`, unless ``shipper_config`` names another way there: then the
    guest has no key of the bucket's.
    """

    def __init__(
        self, vm: VirtualMachine, minio: MinioServer, shipper_config: str | None = None
    ) -> None:
        self._vm = vm
        self._minio = minio
        self._shipper_config = shipper_config
        self.bucket = minio.create_bucket()

    def start(self) -> None:
        """Configure both for this lab and start them; returns when the probes are attached.

        The spool begins empty, whoever used it before: what is counted is this service's.
        """
        self._vm.run(["rm", "-rf", "/var/log/aod", "/var/lib/aod/agent"])
        self._vm.write("/etc/aod/config.yaml", AGENT_CONFIG, group="aod")
        if self._shipper_config is None:
            ship_to_bucket(self._vm, self._minio, self.bucket)
        else:
            self._vm.write(SHIPPER_CONFIG, self._shipper_config, group="aod")
            self._vm.run(["rm", "-f", KEY_FILE])
        self._vm.run(["systemctl", "start", AGENT, SHIPPER], timeout=300)
        self.wait_until_watching()

    def stop(self) -> None:
        """End both services."""
        self._vm.run(["systemctl", "stop", AGENT, SHIPPER], timeout=180)

    def journal(self) -> str:
        """What both services said."""
        return self._vm.run(["journalctl", "--no-pager", "-u", AGENT, "-u", SHIPPER]).stdout

    def wait_until_watching(self) -> None:
        """Until the agent says that its probes are attached."""
        self._vm.wait_until(f"{COMMAND} status | grep -q 'state  *watching$'", timeout=300)

    def status(self) -> dict[str, Any]:
        return json.loads(self._vm.run([COMMAND, "status", "--json"]).stdout)

    def bundle_keys(self) -> list[str]:
        """Archives in the bucket whose manifest is there too."""
        keys = set(self._minio.keys(self.bucket))
        archives = [key for key in keys if key.endswith(".tar.zst")]
        return sorted(key for key in archives if key.replace(".tar.zst", ".json") in keys)

    def wait_for_bundle(self, anomaly: str, timeout: float = 180) -> Bundle:
        """The only bundle of ``anomaly``, when it has come."""
        deadline = time.monotonic() + timeout
        while not (keys := [key for key in self.bundle_keys() if f"-{anomaly}-" in key]):
            if time.monotonic() > deadline:
                raise AssertionError(f"no {anomaly} bundle in {timeout} s\n{self.journal()}")
            time.sleep(0.5)
        (key,) = keys
        return self._open(key)

    def wait_until_calm(self, timeout: float = 180) -> None:
        """Until no incident is open: trouble from then on is another one, with its own bundle."""
        deadline = time.monotonic() + timeout
        while incidents := self.status()["incidents"]["open"]:
            assert time.monotonic() < deadline, incidents
            time.sleep(0.5)

    def wait_until_idle(self) -> None:
        """Until nothing is being collected or waits to be shipped."""
        self._vm.wait_until(
            f"{COMMAND} status --json | python3 -c 'import json, sys; s = json.load(sys.stdin); "
            'sys.exit(s["collections"]["running"] or s["bundles"]["pending"])\'',
            timeout=180,
        )

    def _open(self, key: str) -> Bundle:
        data = self._minio.read(self.bucket, key)
        manifest = json.loads(self._minio.read(self.bucket, key.replace(".tar.zst", ".json")))
        plain = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            files = {
                Path(member.name).name: archive.extractfile(member).read()
                for member in archive.getmembers()
                if member.isfile()
            }
        return Bundle(key, data, manifest, files)


def ship_to_bucket(vm: VirtualMachine, minio: MinioServer, bucket: str, more: str = "") -> None:
    """Configure the guest's shipper for ``bucket``; ``more`` are further lines of its file."""
    settings = "spool: /var/log/aod\nprefix: lab\nscan_interval_sec: 5\nstart_jitter_sec: 0\n"
    destination = (
        "destination:\n  type: s3\n"
        f"  bucket: {bucket}\n  region: us-east-1\n  addressing_style: path\n"
        f"  endpoint_url: http://{HOST_ADDRESS}:{minio.port}\n"
    )
    key = (
        f"[default]\naws_access_key_id = {minio.access_key}\n"
        f"aws_secret_access_key = {minio.secret_key}\n"
    )
    vm.write(SHIPPER_CONFIG, settings + destination + more, group="aod")
    vm.write(KEY_FILE, key, mode=0o600)


def run_named(vm: VirtualMachine, command: str) -> int:
    """Run one program of the guest to its end; its pid. Failures of the program are fine."""
    done: subprocess.CompletedProcess[str] = vm.run(
        f"bash -c 'echo $$; exec {command} >/dev/null 2>&1' || true", timeout=300
    )
    return int(done.stdout.split()[0])
