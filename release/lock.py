"""Pins the wheels of a release anew: ``python -m release.lock``.

The newest versions that pyproject.toml allows and that all supported Pythons have; each with the
hashes of just the wheels that go into the archive.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from pathlib import Path

from release.build import PROJECT, build_wheel
from release.wheels import SUPPORTED_PYTHONS, download, sha256

LOCK = PROJECT / "release" / "requirements.txt"
TOOLS = PROJECT / "release" / "tools.txt"
TOOL_REQUIREMENTS = ("pip", "setuptools>=77,<83")
HEADERS = {
    LOCK: "What aod-fleet[shipper] needs, for CPython {pythons} on x86_64.",
    TOOLS: "What makes the wheel, and the pip that installs it on a host.",
}


def main() -> None:
    """Write both files; what changed, git shows."""
    with tempfile.TemporaryDirectory(prefix="aod-lock-") as temporary:
        directory = Path(temporary)
        wheel = build_wheel(PROJECT, directory)
        write(LOCK, resolve(directory, f"{wheel}[shipper]"))
        write(TOOLS, resolve(directory, *TOOL_REQUIREMENTS))


def resolve(directory: Path, *requirements: str) -> dict[str, set[str]]:
    """``name==version`` of the requirements and all that they depend on, to its wheels' hashes.

    The oldest Python chooses the versions: what it has, later ones have too.
    Raises ReleaseError when one of them has not.
    """
    pins: dict[str, set[str]] = defaultdict(set)
    for python in SUPPORTED_PYTHONS:
        constraints = directory / "constraints.txt"
        constraints.write_text("\n".join(pins))
        place = Path(tempfile.mkdtemp(dir=directory))
        download(python, place, "--constraint", str(constraints), *requirements)
        for wheel in place.glob("*.whl"):
            name, version = wheel.name.split("-")[:2]
            if name != "aod_fleet":
                pins[f"{re.sub('[-_.]+', '-', name).lower()}=={version}"].add(sha256(wheel))
    return pins


def write(lock: Path, pins: dict[str, set[str]]) -> None:
    """In the form of pip's requirement files, sorted."""
    lines = [
        f"# {HEADERS[lock].format(pythons=', '.join(SUPPORTED_PYTHONS))}",
        "# Made anew by `python -m release.lock`, within the ranges of pyproject.toml.",
    ]
    for pin in sorted(pins):
        lines.append(" \\\n    ".join([pin, *(f"--hash=sha256:{h}" for h in sorted(pins[pin]))]))
    lock.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
