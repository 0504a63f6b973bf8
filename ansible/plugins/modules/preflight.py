#!/usr/bin/python
# Apache-2.0
"""Looks whether a host can take a release, and what it has of it."""

from __future__ import annotations

DOCUMENTATION = """
module: preflight
short_description: Looks whether a host can take an AOD release, and changes nothing
version_added: 0.1.0
author: AOD Fleet (@aod)
description:
  - Fails with everything that is in the way, each with what helps.
  - Tells what is installed already, so that no further task has to ask.
requirements:
  - Python 3.8 on the host
options:
  prefix:
    description: Where releases lie.
    type: path
    default: /opt/aod
  version:
    description: The release that is wanted.
    type: str
    required: true
  checksum:
    description: SHA-256 of its archive; when empty, I(version) of any archive will do.
    type: str
    default: ""
  packages:
    description: Packages of the distribution that it needs.
    type: list
    elements: str
    default: []
  disk_mb:
    description: Space that a release needs below I(prefix) while it is installed.
    type: int
    default: 0
  traces_kernel:
    description: Whether the agent is to run there, which needs BPF.
    type: bool
    default: false
notes:
  - Supports C(check_mode), and is the same in it.
"""

EXAMPLES = """
- name: Look whether the host can take the release
  aod.fleet.preflight:
    version: 0.1.0
    checksum: "{{ checksum }}"
    packages: [python3, python3-bpfcc]
    disk_mb: 500
    traces_kernel: true
"""

RETURN = """
problems:
  description: What is in the way, each with what helps.
  returned: always
  type: list
installed:
  description: Whether this very archive is installed, whole, and its Python finds it.
  returned: always
  type: bool
missing_packages:
  description: Those of I(packages) that are not installed.
  returned: always
  type: list
notes:
  description: What is worth to know and in nobody's way.
  returned: always
  type: list
"""

import os
import re
import shutil
from pathlib import Path
from typing import Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aod.fleet.plugins.module_utils.commands import CommandError, run
from ansible_collections.aod.fleet.plugins.module_utils.packages import missing_packages
from ansible_collections.aod.fleet.plugins.module_utils.releases import is_complete

OLDEST_SYSTEMD = 239
OPTIONS = {
    "prefix": {"type": "path", "default": "/opt/aod"},
    "version": {"type": "str", "required": True},
    "checksum": {"type": "str", "default": ""},
    "packages": {"type": "list", "elements": "str", "default": []},
    "disk_mb": {"type": "int", "default": 0},
    "traces_kernel": {"type": "bool", "default": False},
}


def is_installed(release: Path, checksum: str) -> bool:
    """By this archive, whole; an upgrade of the system takes an environment's Python away, or has
    another one by the same name, which looks for the packages elsewhere."""
    try:
        came_from = (release / ".archive").read_text().strip()
    except OSError:
        return False
    if checksum not in ("", came_from) or not is_complete(release):
        return False
    try:
        return run([str(release / "bin/python"), "-I", "-c", "import agent"]).exit_code == 0
    except CommandError:
        return False


def systemd_problems() -> Iterator[str]:
    """systemd has to be the one that started this host, and not too old."""
    if not Path("/run/systemd/system").is_dir():
        yield "systemd does not run this host: the services are systemd units"
        return
    version = re.match(r"systemd (\d+)", run(["systemctl", "--version"]).stdout)
    if version is None or int(version[1]) < OLDEST_SYSTEMD:
        found = version[1] if version else "of an unknown version"
        yield f"systemd is {found}: {OLDEST_SYSTEMD} or newer is needed"


def disk_problems(prefix: Path, needed_mb: int) -> Iterator[str]:
    """On the file system where the release will lie."""
    place = next(path for path in (prefix, *prefix.parents) if path.is_dir())
    free_mb = shutil.disk_usage(place).free // 2**20
    if free_mb < needed_mb:
        yield f"{place} has {free_mb} MB free: {needed_mb} MB are needed to install a release"


def kernel_problems(
    lockdown: Path = Path("/sys/kernel/security/lockdown"),
    symbols: Path = Path("/proc/kallsyms"),
) -> Iterator[str]:
    """Whether the kernel lets root trace. By what it has, since EL 8 has it in a kernel 4.18."""
    if not symbols.exists():
        yield f"there is no {symbols}: a kernel with CONFIG_KALLSYMS and CONFIG_PROC_FS is needed"
        return
    with symbols.open() as lines:
        if not any(" bpf_ringbuf_output" in line for line in lines):
            release = os.uname().release
            yield (
                f"kernel {release} has no BPF ring buffer: Linux 5.8 or newer is needed, "
                "or a distribution's kernel that has it all the same"
            )
    if lockdown.exists() and "[confidentiality]" in lockdown.read_text():
        yield (
            "the kernel is locked down to confidentiality, which forbids BPF to read: boot with "
            "lockdown=integrity"
        )


def notes() -> Iterator[str]:
    """SELinux confines no service of ours: they run unconfined, or as the policy has it."""
    enforce = Path("/sys/fs/selinux/enforce")
    if enforce.exists():
        mode = "enforcing" if enforce.read_text().strip() == "1" else "permissive"
        yield f"SELinux is {mode}; not tested with it"


def main() -> None:
    """The module's entry point."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    wanted = module.params
    prefix = Path(wanted["prefix"])
    installed = is_installed(prefix / wanted["version"], wanted["checksum"])
    problems = list(systemd_problems())
    if not installed:
        problems += disk_problems(prefix, wanted["disk_mb"])
    if wanted["traces_kernel"]:
        problems += kernel_problems()
    result = {
        "problems": problems,
        "installed": installed,
        "missing_packages": missing_packages(wanted["packages"]),
        "notes": list(notes()),
    }
    if problems:
        module.fail_json(msg="this host cannot take the release: " + "; ".join(problems), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
