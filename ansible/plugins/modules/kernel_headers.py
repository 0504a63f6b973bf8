#!/usr/bin/python
# Apache-2.0
"""Tells which packages of kernel headers a host needs, and what it has."""

from __future__ import annotations

DOCUMENTATION = """
module: kernel_headers
short_description: Tells which kernel headers a host needs, and what it has
version_added: 0.1.0
author: AOD Fleet (@aod)
description:
  - Names the exact packages of the running kernel and of every installed one, which may be booted
    next, and the metapackage that keeps headers and kernel in step.
  - Changes nothing.
requirements:
  - Python 3.8 on the host
options:
  packages:
    description: These instead of the ones that are found out.
    type: list
    elements: str
    default: []
notes:
  - Supports C(check_mode), and is the same in it.
"""

EXAMPLES = """
- name: Look which headers are needed
  aod.fleet.kernel_headers:
  register: headers
"""

RETURN = """
kernel:
  description: The running kernel.
  returned: always
  type: str
state:
  description:
    - C(exact) when the running kernel's headers are there, C(fallback) when only others are, with
      which the agent works as well, else C(none).
  returned: always
  type: str
reason:
  description: Why not exact; empty when they are.
  returned: always
  type: str
packages:
  description: The packages that this host should have.
  returned: always
  type: list
missing:
  description: Those that are not installed.
  returned: always
  type: list
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aod.fleet.plugins.module_utils.header_packages import wanted_packages
from ansible_collections.aod.fleet.plugins.module_utils.packages import missing_packages

MODULES = Path("/lib/modules")
SOURCES = Path("/usr/src")
_GENERATED = "include/generated/autoconf.h"


def installed_kernels(running: str) -> list[str]:
    """The running one first. A directory that only a purged kernel left has no modules.builtin."""
    others = {path.parent.name for path in MODULES.glob("*/modules.builtin")} - {running}
    return [running, *sorted(others)]


def headers_state(running: str) -> str:
    """As the agent will find it: exact, fallback or none."""
    trees = (MODULES / running / name for name in ("build", "source"))
    if any((tree / _GENERATED).is_file() for tree in trees):
        return "exact"
    others = [*SOURCES.glob("linux-headers-*"), *SOURCES.glob("kernels/*")]
    return "fallback" if any((tree / _GENERATED).is_file() for tree in others) else "none"


def reason_for(state: str, running: str) -> str:
    """Words for the report; empty when there is nothing to tell."""
    if state == "exact":
        return ""
    return f"the headers of {running} are not installed" + (
        "; those of another kernel do as well" if state == "fallback" else ", nor any others"
    )


def main() -> None:
    """The module's entry point."""
    module = AnsibleModule(
        argument_spec={"packages": {"type": "list", "elements": "str", "default": []}},
        supports_check_mode=True,
    )
    running = os.uname().release
    state = headers_state(running)
    packages = module.params["packages"] or wanted_packages(installed_kernels(running))
    module.exit_json(
        changed=False,
        kernel=running,
        state=state,
        reason=reason_for(state, running),
        packages=packages,
        missing=missing_packages(packages),
    )


if __name__ == "__main__":
    main()
