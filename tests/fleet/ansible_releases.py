"""The releases of ansible-core that the collection is tested with."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import yaml

from tests.cache import cache_directory, exclusive_lock
from tests.fleet.collection import COLLECTION

INSTALL_TIMEOUT_S = 600


class AnsibleUnavailableError(Exception):
    """The release cannot be had here; the message says why."""


def promised() -> str:
    """The oldest release that meta/runtime.yml allows, such as 2.16."""
    requires = yaml.safe_load((COLLECTION / "meta/runtime.yml").read_text())["requires_ansible"]
    found = re.fullmatch(r">=(\d+\.\d+)\.0", requires)
    assert found, requires
    return found[1]


def current() -> Path:
    """The programs of this environment."""
    return Path(sys.executable).parent


def oldest() -> Path:
    """The programs of the newest fix of the oldest release, in an environment of their own.

    From the cache, or installed now. Raises AnsibleUnavailableError.
    """
    release = promised()
    python = "{}.{}".format(*sys.version_info)
    environment = cache_directory() / f"ansible-core-{release}-python{python}"
    with exclusive_lock(environment.with_name(f"{environment.name}.lock")):
        if not (environment / ".ready").exists():
            venv.create(environment, clear=True, with_pip=True)
            _install(environment, f"ansible-core~={release}.0")
            (environment / ".ready").touch()
    return environment / "bin"


def _install(environment: Path, requirement: str) -> None:
    done = subprocess.run(
        [environment / "bin/pip", "install", "--quiet", requirement],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise AnsibleUnavailableError(f"{requirement} cannot be installed: {done.stderr[-1000:]}")
