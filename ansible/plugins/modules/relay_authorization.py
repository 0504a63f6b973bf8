#!/usr/bin/python
# Apache-2.0
"""Lets hosts push their bundles to a relay, or no longer: the lines of its authorized keys."""

from __future__ import annotations

DOCUMENTATION = """
module: relay_authorization
short_description: Lets hosts push to this relay, many in one task
version_added: 0.1.0
author: AOD Fleet (@aod)
description:
  - Runs on the relay. Writes one line for each host, as C(aod-relay authorize) makes it, and marks
    it with the client's name in the inventory. Lines without such a mark were made by hand and
    stay, unless their key is given here; a name alone takes nobody's folder.
  - Two runs at once do not lose each other's lines.
options:
  path:
    description: The file that sshd reads.
    type: path
    default: /etc/aod/relay_authorized_keys
  program:
    description: C(aod-relay) of the release.
    type: path
    default: /opt/aod/current/bin/aod-relay
  clients:
    description:
      - Who is let in, by the name in the inventory, with its C(host) (the name of its folder), its
        C(key) (as C(aod.fleet.relay_identity) returns it; empty in check mode), and perhaps limits
        as the options of C(aod-relay authorize) are called.
    type: dict
    default: {}
  absent:
    description: Clients whose lines are removed.
    type: list
    elements: str
    default: []
  known:
    description: All clients of the inventory; without it, nobody is unknown.
    type: list
    elements: str
    default: []
  purge:
    description: Remove the marked lines of clients that are not in I(known).
    type: bool
    default: false
  host_key:
    description: The relay's own public host key, which is returned.
    type: path
    default: /etc/ssh/ssh_host_ed25519_key.pub
notes:
  - Supports C(check_mode) and C(--diff).
"""

EXAMPLES = """
- name: Let a host in
  aod.fleet.relay_authorization:
    clients:
      web-17.example.com: {host: web-17, key: ssh-ed25519 AAAA, max_host_mb: 8192}
  delegate_to: relay.example.com
"""

RETURN = """
refused:
  description: Clients that were not let in, each with the reason.
  returned: always
  type: dict
unknown:
  description: Clients that have a line, and are not in I(known).
  returned: always
  type: list
host_key:
  description: Type and base64 of the relay's host key; empty when there is none.
  returned: always
  type: str
"""

import fcntl
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.aod.fleet.plugins.module_utils.authorized_keys import (
    Entry,
    merge,
    parse,
)

OPTIONS: dict[str, Any] = {
    "path": {"type": "path", "default": "/etc/aod/relay_authorized_keys"},
    "program": {"type": "path", "default": "/opt/aod/current/bin/aod-relay"},
    "clients": {"type": "dict", "default": {}},
    "absent": {"type": "list", "elements": "str", "default": []},
    "known": {"type": "list", "elements": "str", "default": []},
    "purge": {"type": "bool", "default": False},
    "host_key": {"type": "path", "default": "/etc/ssh/ssh_host_ed25519_key.pub", "no_log": False},
}


def _wanted(module: AnsibleModule) -> tuple[list[Entry], dict[str, str]]:
    """The lines of the clients that have a key, and why some of them get none."""
    clients = {name: one for name, one in module.params["clients"].items() if one.get("key")}
    program = Path(module.params["program"])
    if not clients or (module.check_mode and not program.exists()):
        return [], {}
    if not program.exists():
        module.fail_json(msg=f"there is no {program} here: role relay comes first")
    _, output, _ = module.run_command(
        [str(program), "authorize-many"],
        data=json.dumps(list(clients.values())),
        check_rc=True,
    )
    answers = dict(zip(clients, json.loads(output)))
    lines = [
        parse(f"{one['line']} ansible:{name}") for name, one in answers.items() if "line" in one
    ]
    return lines, {name: one["refused"] for name, one in answers.items() if "refused" in one}


def _run(module: AnsibleModule) -> dict[str, Any]:
    path = Path(module.params["path"])
    before = path.read_text() if path.exists() else None
    wanted, refused = _wanted(module)
    known = set(module.params["known"]) | set(module.params["clients"])
    merged = merge(
        [parse(line) for line in (before or "").splitlines()],
        wanted,
        absent=set(module.params["absent"]),
        known=known if module.params["known"] else None,
        purge=module.params["purge"],
    )
    after = "".join(f"{entry.text}\n" for entry in merged.entries)
    is_gone = before is None and not module.params["clients"] and module.params["absent"]
    changed = after != before and not is_gone
    if changed and not module.check_mode:
        _replace(path, after)
    keyless = any(not one.get("key") for one in module.params["clients"].values())
    return {
        "changed": changed or keyless,
        "refused": {**refused, **merged.refused},
        "unknown": merged.unknown,
        "host_key": _host_key(Path(module.params["host_key"])),
        "diff": {
            "before_header": str(path),
            "after_header": str(path),
            "before": before or "",
            "after": after if changed else before or "",
        },
    }


def _replace(path: Path, text: str) -> None:
    """At once: sshd may read it at any time."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            os.fchmod(descriptor, 0o644)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink()
        raise


def _host_key(path: Path) -> str:
    return " ".join(path.read_text().split()[:2]) if path.exists() else ""


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One run at a time; the lock is on the directory, and leaves no file behind."""
    directory = next(parent for parent in path.parents if parent.is_dir())
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def main() -> None:
    """The module's entry point."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    try:
        with _alone(Path(module.params["path"])):
            result = _run(module)
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
