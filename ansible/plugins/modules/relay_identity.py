#!/usr/bin/python
# Apache-2.0
"""Makes the key with which a host pushes its bundles to a relay, on that host and once."""

from __future__ import annotations

DOCUMENTATION = """
module: relay_identity
short_description: Makes the key with which a host pushes its bundles to a relay
version_added: 0.1.0
author: AOD Fleet (@aod)
description:
  - Makes an ed25519 key without passphrase on the host, unless there is one. It is never replaced,
    and never leaves the host; the public half is returned.
  - Makes the key's owner by systemd-sysusers, should it be missing.
options:
  path:
    description: The private key; its public half lies beside it, as C(.pub).
    type: path
    default: /etc/aod/relay/key
  owner:
    description: Who alone may read it.
    type: str
    default: aod-shipper
  group:
    description: Who may enter its directory.
    type: str
    default: aod
  sysusers:
    description: A sysusers.d file that makes owner and group.
    type: path
    required: true
notes:
  - Supports C(check_mode).
"""

EXAMPLES = """
- name: Make this host's key
  aod.fleet.relay_identity:
    sysusers: /opt/aod/current/share/aod-fleet.sysusers.conf
  register: identity
"""

RETURN = """
public_key:
  description: Type and base64; empty in check mode, while there is no key.
  returned: always
  type: str
"""

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Any, Tuple

from ansible.module_utils.basic import AnsibleModule

Place = Tuple[Path, int, int, int]  # with owner, group and mode

KEY_MODE, PUBLIC_MODE, DIRECTORY_MODE = 0o600, 0o644, 0o750
OPTIONS: dict[str, Any] = {
    "path": {"type": "path", "default": "/etc/aod/relay/key", "no_log": False},
    "owner": {"type": "str", "default": "aod-shipper"},
    "group": {"type": "str", "default": "aod"},
    "sysusers": {"type": "path", "required": True},
}


class Identity:
    """The key pair of this host. Fails the module with what a command said."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._key = Path(module.params["path"])
        self._public = Path(f"{self._key}.pub")

    def make(self) -> bool:
        """Whether anything had to change."""
        missing = not self._has_owner() or not self._key.exists() or not self._public.exists()
        if self._module.check_mode:
            return missing or bool(_misplaced(self._directory() + self._files()))
        if not self._has_owner():
            self._run(["systemd-sysusers", self._module.params["sysusers"]])
        self._key.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        # First of all: made by hand, it may be the owner's, who could put a link there.
        is_put_right = _put_right(self._directory())
        for path in (self._key, self._public):
            _refuse_link(path)
        if not self._key.exists():
            self._make_pair()
        elif not self._public.exists():
            self._public.write_text(self._run(["ssh-keygen", "-y", "-f", str(self._key)]))
        return _put_right(self._files()) or is_put_right or missing

    def public_key(self) -> str:
        """Type and base64; empty while there is none."""
        if not self._public.exists():
            return ""
        return " ".join(self._public.read_text().split()[:2])

    def _make_pair(self) -> None:
        """Under another name first: a run that is killed leaves no key without its public half."""
        fresh = self._key.with_name(f".{self._key.name}.new")
        fresh_public = Path(f"{fresh}.pub")
        for leftover in (fresh, fresh_public):
            if os.path.lexists(leftover):
                leftover.unlink()
        comment = f"aod-shipper@{os.uname().nodename}"
        self._run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(fresh)])
        fresh_public.replace(self._public)
        fresh.replace(self._key)

    def _has_owner(self) -> bool:
        try:
            self._ids()
        except KeyError:
            return False
        return True

    def _ids(self) -> tuple[int, int]:
        owner, group = self._module.params["owner"], self._module.params["group"]
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid

    def _directory(self) -> list[Place]:
        _, gid = self._ids()
        return [(self._key.parent, 0, gid, DIRECTORY_MODE)]

    def _files(self) -> list[Place]:
        uid, gid = self._ids()
        return [(self._key, uid, gid, KEY_MODE), (self._public, 0, gid, PUBLIC_MODE)]

    def _run(self, argv: list[str]) -> str:
        _, output, _ = self._module.run_command(argv, check_rc=True)
        return str(output)


def _refuse_link(path: Path) -> None:
    """Root would write, or give away, whatever it leads to."""
    if path.is_symlink():
        raise OSError(f"{path} is a link: remove it")


def _misplaced(places: list[Place]) -> list[Place]:
    """What is there with another owner, group or mode than it is to have."""
    return [one for one in places if one[0].exists() and not _is_as(*one)]


def _put_right(places: list[Place]) -> bool:
    misplaced = _misplaced(places)
    for path, uid, gid, mode in misplaced:
        os.chown(path, uid, gid)
        path.chmod(mode)
    return bool(misplaced)


def _is_as(path: Path, uid: int, gid: int, mode: int) -> bool:
    found = path.stat()
    return (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (uid, gid, mode)


def main() -> None:
    """The module's entry point."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    identity = Identity(module)
    try:
        changed = identity.make()
        public_key = identity.public_key()
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, public_key=public_key)


if __name__ == "__main__":
    main()
