"""Finds kernel headers that bcc can compile with.

The program reads tracepoint fields and calls helpers; it depends on no struct of the kernel's own.
So headers of another version will do when the running kernel's are not there.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bpf.load_fault import LoadFault
from bpf.preflight import CAP_SYS_MODULE, holds_capability

ARCHITECTURE = "x86"


@dataclass(frozen=True)
class KernelHeaders:
    """``kind``: environment, exact, kheaders (made by bcc from the kernel itself) or installed.

    ``flags`` lead the compiler to the generated half of a tree that a distribution has split.
    """

    kind: str
    path: Path
    flags: tuple[str, ...] = ()

    def select(self) -> None:
        """Make bcc use these headers in this process."""
        if self.kind == "kheaders":
            os.environ.pop("BCC_KERNEL_SOURCE", None)
        else:
            os.environ["BCC_KERNEL_SOURCE"] = str(self.path)


@dataclass(frozen=True)
class HeaderPlaces:
    """Where headers may lie."""

    modules: Path = Path("/lib/modules")
    sources: Path = Path("/usr/src")
    kheaders: Path = Path("/sys/kernel/kheaders.tar.xz")


def find_headers(places: HeaderPlaces | None = None) -> KernelHeaders:
    """The best headers there are: the running kernel's, else the newest complete ones.

    Raises `LoadFault` (no_headers) with the package to install.
    """
    places = places or HeaderPlaces()
    release = platform.release()
    candidates = (
        *_from_environment(),
        *_of_release(places, release),
        *_from_kernel(places, release),
        *_any_installed(places),
    )
    if not candidates:
        raise LoadFault(
            "no_headers",
            f"no kernel headers for {release} and none of another version either",
            install_hint(release),
        )
    return candidates[0]


def install_hint(release: str) -> str:
    """The command that installs headers on this distribution."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    family = {system.get("ID", ""), *system.get("ID_LIKE", "").split()}
    if "ubuntu" in family:
        return f"apt install linux-headers-{release} (or linux-headers-generic)"
    if "debian" in family:
        return f"apt install linux-headers-{release} (or linux-headers-amd64)"
    if family & {"rhel", "fedora", "centos"}:
        return f"dnf install kernel-devel-{release} (or kernel-devel)"
    if family & {"suse", "opensuse", "sles"}:
        return "zypper install kernel-default-devel"
    return f"install the headers package of kernel {release}"


def _from_environment() -> Iterator[KernelHeaders]:
    chosen = os.environ.get("BCC_KERNEL_SOURCE")
    if chosen:
        yield KernelHeaders("environment", Path(chosen))


def _of_release(places: HeaderPlaces, release: str) -> Iterator[KernelHeaders]:
    modules = places.modules / release
    yield from _usable("exact", modules / "build", modules / "source")


def _from_kernel(places: HeaderPlaces, release: str) -> Iterator[KernelHeaders]:
    if places.kheaders.exists():
        yield KernelHeaders("kheaders", places.kheaders)
    # bcc would load the module itself, and fail where this process may not.
    elif holds_capability(CAP_SYS_MODULE):
        for path in (places.modules / release / "kernel" / "kernel").glob("kheaders.ko*"):
            yield KernelHeaders("kheaders", path)


def _any_installed(places: HeaderPlaces) -> Iterator[KernelHeaders]:
    trees = [*places.sources.glob("linux-headers-*"), *places.sources.glob("kernels/*")]
    for tree in sorted(trees, key=_version, reverse=True):
        yield from _usable("installed", tree, _common_half(tree))


def _usable(kind: str, build: Path, source: Path | None) -> Iterator[KernelHeaders]:
    """Headers of the tree ``build``, or of it and the ``source`` tree it was built from."""
    generated = build / "arch" / ARCHITECTURE / "include" / "generated"
    if not (build / "include/generated/autoconf.h").is_file() or not generated.is_dir():
        return
    if _has_sources(build):
        yield KernelHeaders(kind, build)
    elif source is not None and _has_sources(source):
        include = build / "include"
        parts = (generated, generated / "uapi", include, include / "generated" / "uapi")
        yield KernelHeaders(kind, source, tuple(f"-I{part.resolve()}" for part in parts))


def _has_sources(tree: Path) -> bool:
    return (tree / "include/linux/kconfig.h").is_file()


def _common_half(tree: Path) -> Path | None:
    """Debian: the Makefile of an architecture's tree includes that of the common one."""
    try:
        included = re.search(r"^include\s+(\S+)/Makefile$", (tree / "Makefile").read_text(), re.M)
    except OSError:
        return None
    return tree / included[1] if included else None


def _version(tree: Path) -> tuple[tuple[int, ...], str]:
    return tuple(int(number) for number in re.findall(r"\d+", tree.name)), tree.name
