"""Throw-away certificates of a store, made by openssl: one that is trusted, one that is not."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path


class Certificates:
    """Made in ``directory``. ``ca_bundle`` is the file that the shipper is told to trust."""

    def __init__(self, directory: Path) -> None:
        self.ca_bundle, key = _make(directory / "trusted")
        self.trusted = _context(self.ca_bundle, key)
        self.untrusted = _context(*_make(directory / "untrusted"))


def _make(stem: Path) -> tuple[Path, Path]:
    certificate, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", f"/CN={stem.name} store"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key)]
    command += ["-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
