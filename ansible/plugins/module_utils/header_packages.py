"""Names of the packages that hold a kernel's headers, by distribution."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Iterable, Mapping

from ansible_collections.aod.fleet.plugins.module_utils.commands import run

# Debian: 6.1.0-28-amd64, 6.1.0-28-cloud-amd64, 6.12.9+bpo-rt-amd64. Ubuntu: 5.15.0-130-generic,
# 6.8.0-1021-azure. What follows the numbers is the flavour.
_RELEASE = re.compile(r"^\d+\.\d+\.\d+[^-]*(?:-\d+)?-(?P<flavour>[a-z].*)$")
_META_IMAGE = re.compile(r"^linux-image-(?!unsigned-|\d)(?P<flavour>.*?)(?<!-dbg)$")


def wanted_packages(kernels: Iterable[str]) -> list[str]:
    """For the kernels of this host, the running one first."""
    if shutil.which("dpkg-query"):
        return debian_packages(kernels, _installed_images())
    return enterprise_packages(kernels, _has_matched())


def debian_packages(kernels: Iterable[str], images: Mapping[str, str]) -> list[str]:
    """Debian and Ubuntu. ``images``: each installed linux-image-* package with its version.

    The metapackage of headers is of the image's series, since a kernel of backports has its
    headers there.
    """
    flavours = {kernel: flavour_of(kernel) for kernel in kernels}
    exact = [f"linux-headers-{kernel}" for kernel, flavour in flavours.items() if flavour]
    found = {_META_IMAGE.match(image): version for image, version in sorted(images.items())}
    metapackages = [
        f"linux-headers-{image['flavour']}={'.'.join(version.split('.')[:2])}.*"
        for image, version in found.items()
        if image
    ]
    if not metapackages:
        metapackages = [f"linux-headers-{flavour}" for flavour in flavours.values() if flavour][:1]
    return exact + metapackages


def enterprise_packages(kernels: Iterable[str], has_matched: bool) -> list[str]:
    """Enterprise Linux; ``has_matched``: the release has kernel-devel-matched, which keeps step."""
    names = [f"kernel-devel-{kernel}" for kernel in kernels]
    return [*names, "kernel-devel-matched" if has_matched else "kernel-devel"]


def flavour_of(kernel: str) -> str:
    """Such as amd64, cloud-amd64, generic or azure; empty for a kernel from elsewhere."""
    found = _RELEASE.match(kernel)
    return found["flavour"] if found else ""


def _installed_images() -> dict[str, str]:
    listed = run(
        ["dpkg-query", "-W", "-f=${db:Status-Status} ${Package} ${Version}\\n", "linux-image-*"]
    )
    lines = (line.split(" ") for line in listed.stdout.splitlines())
    return {line[1]: line[2] for line in lines if line[0] == "installed"}


def _has_matched() -> bool:
    """From EL 9 on."""
    release = Path("/etc/os-release").read_text()
    found = re.search(r'^VERSION_ID="?(\d+)', release, re.M)
    return found is None or int(found[1]) >= 9
