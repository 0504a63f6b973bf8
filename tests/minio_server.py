"""A real MinIO server for tests."""

from __future__ import annotations

from tests.store_server import StoreServer, free_port

__all__ = ["MinioServer", "free_port"]


class MinioServer(StoreServer):
    """MinIO on one directory, without its web console."""

    name = "minio"
    ready_path = "/minio/health/ready"

    def command(self) -> list[str]:
        address = f"127.0.0.1:{self.port}"
        return [str(self.binary), "server", "--quiet", "--address", address, str(self.data)]

    def environment(self) -> dict[str, str]:
        return {
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        }
