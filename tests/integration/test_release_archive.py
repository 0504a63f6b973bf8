"""The archive as built: what is in it, and that it is always the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from release.build import PROJECT, build, commit_time, contents
from tests.release import Release

TREE = ("agent", "bpf", "shipper", "config", "release")
FILES = ("pyproject.toml", "README.md", "LICENSE")


def test_what_is_in_it(release: Release) -> None:
    version = (release.directory / "VERSION").read_text().strip()
    assert release.archive.name == f"aod-release-{version}.tar.gz"
    with tarfile.open(release.archive) as tar:
        members = tar.getmembers()
    names = [member.name.partition("/")[2] for member in members]
    assert names == sorted(names)
    assert {member.name.partition("/")[0] for member in members} == {f"aod-release-{version}"}
    assert {"SHA256SUMS", "VERSION", "install.py", "requirements.txt"} < set(names)
    config = {f"config/{path.name}" for path in (PROJECT / "config").iterdir()}
    assert config == {name for name in names if name.startswith("config/")}
    assert f"wheels/aod_fleet-{version}-py3-none-any.whl" in names
    assert {(m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, "root", "root")}
    assert {m.mode for m in members if m.isdir()} == {0o755}
    assert {m.mode for m in members if m.isfile()} == {0o644}
    assert all(member.isdir() or member.isfile() for member in members)


def test_checksums_of_every_file_and_of_the_whole(release: Release) -> None:
    sums = (release.directory / "SHA256SUMS").read_text()
    listed = set(re.findall(r"^[0-9a-f]{64}  (.+)$", sums, re.MULTILINE))
    files = {str(p.relative_to(release.directory)) for p in release.directory.rglob("*.*")}
    files |= {"VERSION"}
    assert listed == {name for name in files if (release.directory / name).is_file()}
    check = ["sha256sum", "--check", "--strict", "--quiet"]
    subprocess.run([*check, "SHA256SUMS"], cwd=release.directory, check=True)
    beside = f"{release.archive.name}.sha256"
    subprocess.run([*check, beside], cwd=release.archive.parent, check=True)


def test_the_table_names_every_file(release: Release) -> None:
    table = contents(release.archive)
    listed = (release.directory / "SHA256SUMS").read_text().splitlines()
    assert all(line.partition("  ")[2] in table for line in listed)
    sha256 = release.archive.with_name(f"{release.archive.name}.sha256").read_text().split()[0]
    assert table.endswith(f"sha256 {sha256}")


def test_the_same_bytes_from_a_copy_elsewhere(
    release: Release, system_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other directory, other umask, other times and order of the files."""
    for name in reversed(TREE):
        shutil.copytree(PROJECT / name, tmp_path / name, copy_function=shutil.copyfile)
    for name in FILES:
        shutil.copyfile(PROJECT / name, tmp_path / name)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(commit_time(PROJECT)))
    umask = os.umask(0o077)
    try:
        again = build(tmp_path, tmp_path / "out", [system_python])
    finally:
        os.umask(umask)
    assert again.read_bytes() == release.archive.read_bytes()
