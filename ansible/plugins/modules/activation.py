#!/usr/bin/python
# Apache-2.0
"""Makes a release and its files live on a host, or puts everything back."""

from __future__ import annotations

DOCUMENTATION = """
module: activation
short_description: Makes an AOD release live in one transaction, or puts everything back
version_added: 0.1.0
author: AOD Fleet (@aod)
description:
  - Compares what a host has with what it is to have, and does nothing when they agree.
  - Otherwise validates, keeps what was, replaces the files, points C(current) to the release,
    restarts (or only reloads) the units, and waits until they are healthy.
  - What fails on the way puts files, links and units back as they were, and the task fails with
    the reason.
  - All of it happens on the host, so that a lost connection ends nothing. A run that was killed is
    put back by the next one, from the journal that lies in C(transaction/) below I(prefix).
requirements:
  - Python 3.8 and systemd on the host
options:
  prefix:
    description: Where releases lie, each in a directory of its version.
    type: path
    default: /opt/aod
  version:
    description: The release to make live. Needed for I(state=present).
    type: str
  state:
    description:
      - With C(absent), stops and disables I(units), and removes the I(dest) of each of I(files),
        I(trees) and I(directories). The release itself stays.
    type: str
    choices: [present, absent]
    default: present
  files:
    description: The files of a host that belong to it. Directories above them are made (0755).
    type: list
    elements: dict
    default: []
    suboptions:
      src:
        description:
          - On the host; absolute, or relative to the release. This or a content is needed for
            I(state=present).
        type: str
      content:
        description: The content itself. The host's log gets it, so a secret comes by I(src).
        type: str
      secret_base64:
        description:
          - A content that nobody is to see, in base64; it implies I(secret). Ansible notes all
            files in the host's journal, and masks there only what it need not escape.
        type: str
      dest:
        description: Where it becomes live.
        type: path
        required: true
      owner:
        description: A user of the host, or one that a sysusers.d file of the same task makes.
        type: str
        default: root
      group:
        description: The same for the group.
        type: str
        default: root
      mode:
        description: Octal.
        type: str
        default: "0644"
      reload:
        description: A reload of I(units) is enough after a change.
        type: bool
        default: false
      optional:
        description: A release without I(src) has no such file; I(dest) is removed then.
        type: bool
        default: false
      secret:
        description: Never shown in a diff.
        type: bool
        default: false
      validate:
        description:
          - A command that must end with 0 before anything changes; its argument C(%s) becomes the
            path of the new file. In check mode it runs when its program is there.
        type: list
        elements: str
        default: []
  validate:
    description: Commands that must all end with 0 before anything changes.
    type: list
    elements: list
    default: []
  units:
    description: Enabled and running afterwards. Templates and what they start need no mention.
    type: list
    elements: str
    default: []
  health:
    description: Commands that must all end with 0 after a change, or everything is put back.
    type: list
    elements: list
    default: []
  health_timeout_sec:
    description: How long each of I(health) may take, in seconds.
    type: int
    default: 900
  keep:
    description:
      - How many complete releases may stay below I(prefix); the oldest others are removed, but
        never the ones that C(current) and C(previous) point to. With 0, all stay.
    type: int
    default: 0
  trees:
    description: For I(state=absent), directories to remove with all that is in them.
    type: list
    elements: path
    default: []
  directories:
    description:
      - For I(state=absent), directories to remove when they are empty in the end. So are those that
        activations made, such as C(/etc/sysusers.d).
    type: list
    elements: path
    default: []
notes:
  - Supports C(check_mode) and C(--diff).
  - When I(version) changes, every other running C(aod-*.service) is restarted as well, and must run
    in the end.
  - Files below C(/etc/sysusers.d) and C(/etc/tmpfiles.d) are put into effect before the others
    are written. Users that this made stay when everything else is put back.
"""

EXAMPLES = """
- name: Make the agent of the release live
  aod.fleet.activation:
    version: 0.1.0
    files:
      - src: share/aod-fleet.sysusers.conf
        dest: /etc/sysusers.d/aod-fleet.conf
      - src: share/aod-agent.service
        dest: /etc/systemd/system/aod-agent.service
      - content: "{{ agent_configuration | to_nice_yaml }}"
        dest: /etc/aod/config.yaml
        group: aod
        mode: "0640"
        reload: true
        validate: [/opt/aod/0.1.0/bin/aod-agent, check-config, "%s"]
    units: [aod-agent.service]
    health:
      - [/opt/aod/current/bin/aod-agent, status, --wait, "180"]

- name: Remove it again
  aod.fleet.activation:
    state: absent
    files:
      - dest: /etc/systemd/system/aod-agent.service
    units: [aod-agent.service]
    directories: [/etc/aod]
"""

RETURN = """
version:
  description: The release that is live now; empty for none.
  returned: always
  type: str
previous_version:
  description: The one that was live before this task; empty for none.
  returned: always
  type: str
restarted:
  description: Units that were restarted or started.
  returned: always
  type: list
reloaded:
  description: Units that were reloaded.
  returned: always
  type: list
written:
  description: Files that were written.
  returned: success
  type: list
rolled_back:
  description: Whether a failure was met and everything was put back.
  returned: always
  type: bool
recovered:
  description: Whether an activation that had been killed was put back first.
  returned: always
  type: bool
removed:
  description: Paths that were removed, for I(state=absent).
  returned: I(state=absent)
  type: list
stopped:
  description: Units that were stopped or disabled, for I(state=absent).
  returned: I(state=absent)
  type: list
reason:
  description: What failed.
  returned: failure
  type: str
journal:
  description: The last lines of the units' journal, from before everything was put back.
  returned: failure
  type: list
"""

import fcntl
import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aod.fleet.plugins.module_utils.activation import (
    Activation,
    ActivationError,
)
from ansible_collections.aod.fleet.plugins.module_utils.commands import CommandError
from ansible_collections.aod.fleet.plugins.module_utils.deactivation import deactivate
from ansible_collections.aod.fleet.plugins.module_utils.journal import Journal

FILE_OPTIONS: dict[str, Any] = {
    "src": {"type": "str"},
    "content": {"type": "str"},
    "secret_base64": {"type": "str", "no_log": True},
    "dest": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0644"},
    "reload": {"type": "bool", "default": False},
    "optional": {"type": "bool", "default": False},
    "secret": {"type": "bool", "default": False, "no_log": False},
    "validate": {"type": "list", "elements": "str", "default": []},
}
OPTIONS: dict[str, Any] = {
    "prefix": {"type": "path", "default": "/opt/aod"},
    "version": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": FILE_OPTIONS,
        "mutually_exclusive": [("src", "content", "secret_base64")],
    },
    "validate": {"type": "list", "elements": "list", "default": []},
    "units": {"type": "list", "elements": "str", "default": []},
    "health": {"type": "list", "elements": "list", "default": []},
    "health_timeout_sec": {"type": "int", "default": 900},
    "keep": {"type": "int", "default": 0},
    "trees": {"type": "list", "elements": "path", "default": []},
    "directories": {"type": "list", "elements": "path", "default": []},
}


@contextmanager
def _alone(prefix: Path) -> Iterator[None]:
    """One activation at a time: this one waits for another, which a lost controller may have left.

    Released by the kernel, however this process ends.
    """
    descriptor = os.open(prefix, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _present(module: AnsibleModule, prefix: Path) -> dict[str, Any]:
    activation = Activation(module.params, module.check_mode, module._diff)
    if module.check_mode:
        return activation.preview()
    if not prefix.is_dir():
        raise ActivationError(f"no release is in {prefix}: it does not exist")
    with _alone(prefix):
        return activation.run()


def _absent(module: AnsibleModule, prefix: Path) -> dict[str, Any]:
    if module.check_mode or not prefix.is_dir():
        return deactivate(module.params, module.check_mode)
    with _alone(prefix):
        Journal(prefix).recover()
        return deactivate(module.params, check_mode=False)


def main() -> None:
    """The module's entry point."""
    module = AnsibleModule(
        argument_spec=OPTIONS,
        supports_check_mode=True,
        required_if=[("state", "present", ("version",))],
    )
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)  # root's own may keep the services out of the directories that are made
    try:
        act = _absent if module.params["state"] == "absent" else _present
        result = act(module, Path(module.params["prefix"]))
    except ActivationError as fault:
        module.fail_json(msg=str(fault), **fault.result)
    except (CommandError, OSError) as error:
        module.fail_json(msg=str(error), rolled_back=False)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
