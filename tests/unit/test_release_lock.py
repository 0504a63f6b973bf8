"""The release's pins are what pyproject.toml asks for, for every Python that it supports."""

from __future__ import annotations

import ast
import re

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from release.build import PROJECT
from release.wheels import SUPPORTED_PYTHONS

RELEASE = PROJECT / "release"
DECLARED = tomllib.loads((PROJECT / "pyproject.toml").read_text())
LOCKS = [RELEASE / "requirements.txt", RELEASE / "tools.txt"]
COMPILED = {"numpy", "pyyaml", "zstandard"}


def pins() -> dict[str, tuple[str, int]]:
    """Name to version and number of hashes."""
    entries = [
        re.fullmatch(r"([a-z0-9-]+)==(\S+) (.*)", entry.replace("\\\n", ""), re.DOTALL)
        for lock in LOCKS
        for entry in re.split(r"\n(?=\S)", lock.read_text().rstrip())
        if not entry.startswith("#")
    ]
    assert all(entries)
    return {e[1]: (e[2], len(re.findall(r"--hash=sha256:[0-9a-f]{64}", e[3]))) for e in entries}


def declared() -> list[str]:
    project = DECLARED["project"]
    return [
        *project["dependencies"],
        *project["optional-dependencies"]["shipper"],
        *DECLARED["build-system"]["requires"],
    ]


@pytest.mark.parametrize("line", declared())
def test_a_pin_lies_within_the_declared_range(line: str) -> None:
    requirement = Requirement(line)
    version, _ = pins()[requirement.name]
    assert requirement.specifier.contains(version)


@pytest.mark.parametrize("name", pins())
def test_one_wheel_for_all_pythons_or_one_for_each(name: str) -> None:
    assert pins()[name][1] == (len(SUPPORTED_PYTHONS) if name in COMPILED else 1)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_no_place_to_fetch_from_is_prescribed(lock: object) -> None:
    assert not re.search(r"://|index-url|find-links|trusted-host", lock.read_text())


def test_the_supported_pythons_are_the_declared_ones() -> None:
    declared = SpecifierSet(DECLARED["project"]["requires-python"])
    assert all(declared.contains(python) for python in SUPPORTED_PYTHONS)
    oldest = min(int(python.partition(".")[2]) for python in SUPPORTED_PYTHONS)
    assert not declared.contains(f"3.{oldest - 1}")


def test_an_old_python_can_read_the_installer_and_be_told() -> None:
    ast.parse((RELEASE / "install.py").read_text(), feature_version=(3, 6))
