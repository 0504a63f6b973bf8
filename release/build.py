"""Builds dist/aod-release-<version>.tar.gz, all that a host needs: ``python -m release.build``.

The same checkout makes the same bytes: names are sorted, owners and times fixed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from release.wheels import (
    SUPPORTED_PYTHONS,
    ReleaseError,
    locked_wheels,
    run_pip,
    sha256,
)

PROJECT = Path(__file__).parents[1]
PACKAGES = ("agent", "bpf", "shipper")
BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE")
#: Of a tree without git: the first second that a wheel can hold.
EARLIEST_TIME = 315_532_800


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="release.build", description=__doc__)
    parser.add_argument("--project", type=Path, default=PROJECT, help="the checkout")
    parser.add_argument("--output", type=Path, default=Path("dist"), metavar="DIRECTORY")
    parser.add_argument(
        "--python",
        action="append",
        choices=SUPPORTED_PYTHONS,
        help="only for this Python, which makes it smaller; can be repeated",
    )
    options = parser.parse_args(arguments)
    try:
        archive = build(options.project, options.output, options.python or SUPPORTED_PYTHONS)
    except (ReleaseError, OSError) as error:
        print(f"release.build: {error}", file=sys.stderr)
        return 1
    print(contents(archive))
    return 0


def build(project: Path, output: Path, pythons: Sequence[str] = SUPPORTED_PYTHONS) -> Path:
    """Write the archive and its .sha256 into ``output``, and return the archive's path.

    Raises ReleaseError and OSError.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="aod-release-") as temporary:
        wheel = build_wheel(project, Path(temporary))
        top = Path(temporary) / f"aod-release-{wheel.name.split('-')[1]}"
        stage(project, wheel, top, pythons)
        archive = output / f"{top.name}.tar.gz"
        partial = archive.with_suffix(".partial")
        pack(top, partial, commit_time(project))
    checksum = archive.with_name(f"{archive.name}.sha256")
    checksum.write_text(f"{sha256(partial)}  {archive.name}\n")
    return partial.rename(archive)


def build_wheel(project: Path, directory: Path) -> Path:
    """The checkout's wheel, made in a copy: a build leaves its traces in the tree it runs in.

    Raises ReleaseError.
    """
    tools = locked_wheels(project / "release" / "tools.txt", SUPPORTED_PYTHONS[0])
    with tempfile.TemporaryDirectory(prefix="aod-wheel-") as temporary:
        source = Path(temporary)
        for name in BUILD_FILES:
            shutil.copy(project / name, source)
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(project / package, source / package, ignore=ignored)
        pip = [sys.executable, str(_wheel_of("pip", tools) / "pip")]
        offline = ["--no-index", "--find-links", str(tools[0].parent)]
        target = ["--no-deps", "--wheel-dir", str(directory), str(source)]
        time = {"SOURCE_DATE_EPOCH": str(commit_time(project))}
        run_pip(pip, "wheel", *offline, *target, environment=time)
    return _wheel_of("aod_fleet", list(directory.iterdir()))


def stage(project: Path, wheel: Path, top: Path, pythons: Sequence[str]) -> None:
    """Lay out the archive's directory. Raises ReleaseError."""
    lock, tools = (project / "release" / name for name in ("requirements.txt", "tools.txt"))
    wheels = {path.name: path for python in pythons for path in locked_wheels(lock, python)}
    pip = _wheel_of("pip", locked_wheels(tools, SUPPORTED_PYTHONS[0]))
    shutil.copytree(project / "config", top / "config")
    (top / "wheels").mkdir()
    for path in (*wheels.values(), pip, wheel):
        shutil.copy(path, top / "wheels")
    shutil.copy(project / "release" / "install.py", top)
    version = wheel.name.split("-")[1]
    (top / "VERSION").write_text(f"{version}\n")
    ours = f"aod-fleet[shipper]=={version} \\\n    --hash=sha256:{sha256(wheel)}\n"
    (top / "requirements.txt").write_text(lock.read_text() + ours)
    files = sorted(path for path in top.rglob("*") if path.is_file())
    sums = [f"{sha256(path)}  {path.relative_to(top)}\n" for path in files]
    (top / "SHA256SUMS").write_text("".join(sums))
    set_modes(top)


def set_modes(tree: Path) -> None:
    """Whatever the umask of who made it: 0755 for directories, 0644 for files."""
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def pack(top: Path, archive: Path, time: int) -> None:
    """A tar of the directory in the order of names, of root, everything of that time."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = time
        return member

    # Wheels are compressed already: a higher level costs seconds and saves nothing.
    with (
        archive.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=time) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in (top, *sorted(top.rglob("*"))):
            name = str(path.relative_to(top.parent))
            tar.add(path, arcname=name, recursive=False, filter=plain)


def commit_time(project: Path) -> int:
    """``$SOURCE_DATE_EPOCH``, else the checked-out commit's, in seconds since 1970."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(project), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else EARLIEST_TIME


def contents(archive: Path) -> str:
    """A table of the archive's files with sizes, and its checksum."""
    with tarfile.open(archive) as tar:
        files = [member for member in tar if member.isfile()]
    lines = [f"{_megabytes(file.size)}  {file.name.partition('/')[2]}" for file in files]
    total = f"{_megabytes(archive.stat().st_size)}  {archive}"
    return "\n".join([*lines, total, f"sha256 {sha256(archive)}"])


def _megabytes(size: int) -> str:
    return f"{size / 1e6:7.2f} MB"


def _wheel_of(name: str, wheels: Sequence[Path]) -> Path:
    (wheel,) = (path for path in wheels if path.name.startswith(f"{name}-"))
    return wheel


if __name__ == "__main__":
    sys.exit(main())
