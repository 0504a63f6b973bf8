"""Builds and caches the guest's disk image: `python -m tests.vm.image --kernel 6.1`."""

import argparse
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cache import cache_directory, exclusive_lock
from tests.vm import recipe

DISK_SIZE = "6G"
BUILD_TIMEOUT_S = 1800

#: Program on the host -> the Debian package that has it.
HOST_TOOLS = {
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
}


class LabUnavailableError(Exception):
    """This host cannot run the VM lab; the message names the cure."""


class ImageBuildError(Exception):
    """The host has the tools, but no image came of it; the message ends with their output."""


@dataclass(frozen=True)
class Image:
    """A bootable disk with its kernel, and the key that opens it. Read-only: boot snapshots."""

    directory: Path

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def ssh_key(self) -> Path:
        return self.directory / "ssh_key"


def require_host_tools() -> None:
    """Raises LabUnavailableError unless this host can build and boot images."""
    missing = sorted({pkg for tool, pkg in HOST_TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise LabUnavailableError(f"the VM lab needs: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise LabUnavailableError("the VM lab needs root: the image's files belong to root")


def image_for(kernel: str) -> Image:
    """The image with that kernel series, from the cache or built now (about two minutes).

    A second process that asks meanwhile waits for the first one's build. Images of older
    recipes stay in the cache (1.4 GB each) until somebody deletes them.
    """
    if kernel not in recipe.KERNELS:
        raise ValueError(f"no kernel {kernel!r}: one of {', '.join(recipe.KERNELS)}")
    require_host_tools()
    images = cache_directory() / "vm"
    images.mkdir(mode=0o700, exist_ok=True)
    name = f"{recipe.SUITE}-{kernel}-{_recipe_hash()}"
    image = Image(images / name)
    with exclusive_lock(images / f"{name}.lock"):
        if not image.directory.exists():
            partial = images / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            try:
                _build(Image(partial), kernel)
                partial.rename(image.directory)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return image


def _recipe_hash() -> str:
    digest = hashlib.sha256()
    for module in (__file__, recipe.__file__):
        digest.update(Path(module).read_bytes())
    return digest.hexdigest()[:16]


def _build(image: Image, kernel: str) -> None:
    root = image.directory / "root"
    root.mkdir()
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(image.ssh_key)])
    _install_packages(image.directory, kernel)
    _run(["tar", "-x", "--numeric-owner", "-f", str(image.directory / "root.tar"), "-C", str(root)])
    _extract_kernel(root, image)
    _run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(root), str(image.disk), DISK_SIZE])
    shutil.rmtree(root)
    for intermediate in ("root.tar", "overlay.tar"):
        (image.directory / intermediate).unlink()


def _install_packages(directory: Path, kernel: str) -> None:
    overlay = directory / "overlay.tar"
    _write_overlay(overlay, authorized_key=(directory / "ssh_key.pub").read_text())
    packages = ",".join((*recipe.PACKAGES, *recipe.KERNELS[kernel]))
    # A tar rather than a directory: mmdebstrap mounts /dev into a directory while it
    # works, and what a killed build leaves behind must be safe to delete.
    _run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={packages}",
            *(f"--dpkgopt=path-exclude={path}" for path in recipe.EXCLUDED_PATHS),
            f"--essential-hook=tar-in '{overlay}' /",
            recipe.SUITE,
            str(directory / "root.tar"),
            *_host_apt_sources(),
        ]
    )


def _host_apt_sources() -> list[str]:
    """The host's own Debian mirrors when it runs the same suite, else mmdebstrap's default."""
    sources = Path("/etc/apt/sources.list.d/debian.sources")
    if sources.exists() and recipe.SUITE in sources.read_text():
        return [str(sources)]
    return []


def _write_overlay(path: Path, authorized_key: str) -> None:
    files = {**recipe.FILES, "root/.ssh/authorized_keys": authorized_key}
    with tarfile.open(path, "w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            entry.mode = 0o600 if name.startswith("root/") else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
        for name, target in recipe.LINKS.items():
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.SYMTYPE
            entry.linkname = target
            tar.addfile(entry)


def _extract_kernel(root: Path, image: Image) -> None:
    (vmlinuz,) = (root / "boot").glob("vmlinuz-*")
    version = vmlinuz.name.partition("-")[2]
    if not (root / "usr/src" / f"linux-headers-{version}").is_dir():
        raise ImageBuildError(f"the mirror has no headers for its own kernel {version}")
    shutil.copyfile(vmlinuz, image.kernel)
    shutil.copyfile(root / "boot" / f"initrd.img-{version}", image.initrd)


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
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise ImageBuildError(f"{command[0]} failed with {done.returncode}:\n{tail}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", choices=sorted(recipe.KERNELS), default="6.1")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        image = image_for(options.kernel)
    except (LabUnavailableError, ImageBuildError) as error:
        raise SystemExit(str(error)) from None
    print(f"{image.directory} ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
