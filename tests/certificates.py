"""Certificates of every kind for servers on loopback, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path

_CA = """\
[ca]
default_ca = own
[own]
database = {0}/index.txt
serial = {0}/serial
new_certs_dir = {0}
default_md = sha256
policy = names
copy_extensions = copy
[names]
commonName = supplied
"""


def make_certificate(
    directory: Path, name: str = "IP:127.0.0.1", start: str = "", end: str = ""
) -> Path:
    """A self-signed certificate with its key in one PEM file, valid now, or from ``start`` to
    ``end`` (YYMMDDHHMMSSZ)."""
    directory.mkdir(parents=True, exist_ok=True)
    key, request, certificate = (directory / kind for kind in ("tls.key", "tls.csr", "tls.crt"))
    (directory / "index.txt").write_text("")
    (directory / "serial").write_text("01")
    (directory / "ca.cnf").write_text(_CA.format(directory))
    _openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-subj", "/CN=test", "-addext", f"subjectAltName={name}"),
        *("-keyout", key, "-out", request),
    )
    dates = ["-startdate", start, "-enddate", end] if start else ["-days", "2"]
    _openssl(
        *("ca", "-batch", "-notext", "-selfsign", "-config", directory / "ca.cnf"),
        *("-keyfile", key, "-in", request, "-out", certificate, *dates),
    )
    both = directory / "tls.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
