"""A real S3 server for tests that shares no S3 code with MinIO: the Versity gateway."""

from __future__ import annotations

from pathlib import Path

from tests.store_server import StoreServer


class VersityServer(StoreServer):
    """The gateway on a directory: an object is a file, what is known of it lies in a sidecar, so
    that the file system need not take extended attributes."""

    name = "versitygw"
    ready_path = "/-/ready"

    def start(self) -> None:
        self._sidecar.mkdir(parents=True, exist_ok=True)
        super().start()

    def command(self) -> list[str]:
        address = f"127.0.0.1:{self.port}"
        server = [str(self.binary), "--quiet", "--port", address, "--health", self.ready_path]
        return [*server, "posix", "--sidecar", str(self._sidecar), str(self.data)]

    def environment(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY_ID": self.access_key, "ROOT_SECRET_ACCESS_KEY": self.secret_key}

    @property
    def _sidecar(self) -> Path:
        return self.directory / "sidecar"
