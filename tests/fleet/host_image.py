"""A Debian root tree that boots systemd: `python -m tests.fleet.host_image`.

Hosts in containers boot it, natively and on the kernel of this machine: what needs another one, or
a real mount is for tests/vm.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cache import cache_directory, exclusive_lock

SUITE = "bookworm"
BUILD_TIMEOUT_S = 1200

#: Program on this machine -> the Debian package that has it.
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
}

# bcc is there, because its compiler is most of what an installation would fetch.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "kmod",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "python3-bpfcc",
    "rsync",
    "systemd",
    "systemd-sysv",
    "udev",
)

FILES = {
    "etc/ssh/sshd_config.d/lab.conf": "PasswordAuthentication no\nUseDNS no\nMaxStartups 100\n",
    # The journal is read over ssh; the container's kernel log is this machine's.
    "etc/systemd/journald.conf.d/lab.conf": "[Journal]\nReadKMsg=no\nStorage=volatile\n",
}


class HostsUnavailableError(Exception):
    """This machine cannot boot such hosts; the message names the cure."""


@dataclass(frozen=True)
class HostImage:
    """The tree, and the key that opens it. Read-only: hosts boot with a volatile overlay."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def ssh_key(self) -> Path:
        return self.directory / "ssh_key"


def host_image() -> HostImage:
    """From the cache, or made now (about half a minute). Raises HostsUnavailableError."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise HostsUnavailableError(
            f"hosts in containers need: apt-get install {' '.join(missing)}"
        )
    if os.geteuid() != 0:
        raise HostsUnavailableError("hosts in containers need root")
    images = cache_directory() / "hosts"
    images.mkdir(mode=0o700, exist_ok=True)
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    image = HostImage(images / f"{SUITE}-{recipe}")
    with exclusive_lock(images / f"{image.directory.name}.lock"):
        if not image.directory.exists():
            partial = image.directory.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            _build(HostImage(partial))
            partial.rename(image.directory)
    return image


def _build(image: HostImage) -> None:
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(image.ssh_key)])
    archive = image.directory / "root.tar"
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    _run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"),
            *(SUITE, str(archive)),
            *([str(sources)] if sources.exists() and SUITE in sources.read_text() else []),
        ]
    )
    image.root.mkdir()
    _run(["tar", "-x", "--numeric-owner", "-f", str(archive), "-C", str(image.root)])
    archive.unlink()
    (image.root / "etc/hostname").unlink(missing_ok=True)  # this machine's; each host has its own
    keys = {"root/.ssh/authorized_keys": image.ssh_key.with_suffix(".pub").read_text()}
    for name, text in {**FILES, **keys}.items():
        target = image.root / name
        target.parent.mkdir(mode=0o700 if "ssh" in name else 0o755, parents=True, exist_ok=True)
        target.write_text(text)


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed with {done.returncode}:\n{done.stdout[-4000:]}")


def main() -> None:
    try:
        print(host_image().directory)
    except HostsUnavailableError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
