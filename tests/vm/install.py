"""Installs the checkout in a guest the way a host gets it: wheel, venv, units, configuration.

Nothing is started: a test writes its configuration first.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from pathlib import Path

from tests.cache import cache_directory, exclusive_lock
from tests.vm.guest import STRICT_BASH
from tests.vm.machine import VirtualMachine

PROJECT = Path(__file__).parents[2]
PACKAGES = ("agent", "bpf", "shipper")
BUILD_FILES = ("pyproject.toml", "README.md", "LICENSE")
CONFIG_FILES = (
    "aod-agent.service",
    "aod-fleet.sysusers.conf",
    "aod-loader.socket",
    "aod-loader@.service",
    "aod-relay.sshd.conf",
    "aod-relay.sysusers.conf",
    "aod-relay.tmpfiles.conf",
    "aod-shipper.service",
    "config.yaml",
    "shipper.yaml",
)
GUEST_PYTHON = "3.11"
STAGE = "/root/aod-stage"

# Debian's pip from the guest's system packages does what a pip inside the venv would do,
# and saves its minute of unpacking under emulation.
_INSTALL = """
prefix=/opt/aod/$1
python3 -m venv --clear --system-site-packages --without-pip "$prefix"
"$prefix/bin/python" -m pip install --quiet --no-index --no-compile --root-user-action=ignore \
    --find-links "$2" 'aod-fleet[shipper]'
ln -sfn "$prefix" /opt/aod/next
mv -T /opt/aod/next /opt/aod/current

cd "$2/config"
install -D -m 0644 aod-fleet.sysusers.conf /etc/sysusers.d/aod-fleet.conf
systemd-sysusers
install -d -m 0755 /etc/aod
install -m 0640 -g aod config.yaml shipper.yaml /etc/aod/
install -m 0644 aod-*.service aod-*.socket /etc/systemd/system/
systemctl daemon-reload
systemctl --quiet enable aod-agent.service aod-shipper.service
"""


@dataclass(frozen=True)
class Installation:
    """What the guest has now: `/opt/aod/<version>`, to which `/opt/aod/current` points."""

    version: str


def install(vm: VirtualMachine, project: Path = PROJECT) -> Installation:
    """Build, copy and install; the units are enabled, and not started.

    Raises FileNotFoundError when the checkout lacks a unit or a configuration file.
    """
    missing = [name for name in CONFIG_FILES if not (project / "config" / name).is_file()]
    if missing:
        raise FileNotFoundError(f"config/ lacks {', '.join(missing)}")
    with tempfile.TemporaryDirectory(prefix="aod-install-") as temporary:
        stage = Path(temporary) / "stage"
        stage.mkdir()
        wheel = build_wheel(project, stage)
        metadata = _wheel_metadata(wheel)
        for dependency in wheelhouse(_shipper_requirements(metadata)).iterdir():
            shutil.copy(dependency, stage)
        (stage / "config").mkdir()
        for name in CONFIG_FILES:
            shutil.copy(project / "config" / name, stage / "config")
        vm.run(["rm", "-rf", STAGE])
        vm.put(stage, STAGE)
    version = str(metadata["Version"])
    vm.run([*STRICT_BASH, _INSTALL, "install", version, STAGE], timeout=600)
    return Installation(version)


def build_wheel(project: Path, directory: Path) -> Path:
    """The checkout's wheel, made in a copy: a build leaves its traces in the tree it runs in."""
    with tempfile.TemporaryDirectory(prefix="aod-wheel-") as temporary:
        source = Path(temporary)
        for name in BUILD_FILES:
            shutil.copy(project / name, source)
        for package in PACKAGES:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(project / package, source / package, ignore=ignored)
        _pip("wheel", "--no-deps", "--wheel-dir", str(directory), str(source))
    (wheel,) = directory.glob("aod_fleet-*.whl")
    return wheel


def wheelhouse(requirements: list[str]) -> Path:
    """A cached directory with wheels of the requirements and all that they depend on.

    Pure Python only: they must fit the guest's interpreter, not this one.
    """
    key = hashlib.sha256("\n".join([GUEST_PYTHON, *requirements]).encode()).hexdigest()[:16]
    directory = cache_directory() / f"wheelhouse-{key}"
    with exclusive_lock(directory.with_suffix(".lock")):
        if not directory.exists():
            partial = directory.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            target = ["--python-version", GUEST_PYTHON, "--platform", "any"]
            only_wheels = ["--only-binary", ":all:", "--implementation", "py", "--abi", "none"]
            _pip("download", "--dest", str(partial), *target, *only_wheels, *requirements)
            partial.rename(directory)
    return directory


def _wheel_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return BytesHeaderParser().parsebytes(archive.read(name))


def _shipper_requirements(metadata: Message) -> list[str]:
    """The extra's own requirements; numpy and its like come with the guest's system."""
    parts = (str(line).partition(";") for line in metadata.get_all("Requires-Dist", []))
    return sorted(
        requirement.strip()
        for requirement, _, marker in parts
        if marker.replace("'", '"').strip() == 'extra == "shipper"'
    )


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"pip {arguments[0]} failed with {done.returncode}:\n{done.stderr}")
