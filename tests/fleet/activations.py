"""Small releases on a host, and the task that makes one of them live."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.fleet.host import FleetHost
from tests.fleet.playbooks import Ansible, PlaybookRun

UNIT = "aod-agent.service"
CONFIG = "/etc/aod/agent.conf"
SECRET = "/etc/aod/secret"
RELOADS = "/run/reloads"

# Says who it is in a file of its own: of which release, and which process.
_PROGRAM = """#!/bin/sh
echo "{version} $$" > /run/serving
exec sleep infinity
"""
_UNIT_FILE = """[Unit]
Description={description}
[Service]
ExecStart=/opt/aod/current/bin/serve
ExecReload=/bin/sh -c 'echo again >> /run/reloads'
[Install]
WantedBy=multi-user.target
"""
_CHECK = """#!/bin/sh
grep -q good "$1" && exit
echo "$1: line 1 is not good" >&2
exit 2
"""
_PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Activate
      aod.fleet.activation: "{{ activation }}"
      register: activated
    - name: Tell
      ansible.builtin.copy:
        content: "{{ activated | to_json }}"
        dest: /run/activated
        mode: "0600"
      check_mode: false
      diff: false
"""
# In front of the real ones: ends the module, which is its parent, at the word in /run/kill-at.
_KILLER = """#!/bin/sh
if [ "$(cat /run/kill-at 2>/dev/null)" = "${0##*/} $1" ]; then
    rm /run/kill-at
    kill -KILL $PPID
fi
exec /usr/bin/${0##*/} "$@"
"""


class Activations:
    """Runs the module on ``host`` with the arguments of a small agent."""

    def __init__(self, host: FleetHost, directory: Path) -> None:
        self.host = host
        self._ansible = Ansible(directory, {"all": {host.name: host.variables()}})
        self._playbook = directory / "activate.yml"
        self._playbook.write_text(_PLAYBOOK)

    def release(self, version: str, *, healthy: bool = True, description: str = "A test") -> None:
        """A complete one below /opt/aod."""
        tree = f"/opt/aod/{version}"
        self._put(f"{tree}/bin/serve", _PROGRAM.format(version=version), "0755")
        code = 0 if healthy else 1
        words = f"#!/bin/sh\necho 'not well' >&2\nexit {code}\n"
        self._put(f"{tree}/bin/status", words, "0755")
        self._put(f"{tree}/bin/check", _CHECK, "0755")
        self._put(f"{tree}/share/{UNIT}", _UNIT_FILE.format(description=description), "0644")
        self._put(f"{tree}/share/user.conf", "g aodtest -\n", "0644")
        self._put(f"{tree}/.complete", "digest\n", "0644")

    def arguments(self, version: str, config: str = "good\n", **more: Any) -> dict[str, Any]:
        return {
            "version": version,
            "files": [
                {
                    **{"content": config, "dest": CONFIG, "group": "aodtest", "mode": "0640"},
                    **{"reload": True, "validate": [f"/opt/aod/{version}/bin/check", "%s"]},
                },
                {"src": f"share/{UNIT}", "dest": f"/etc/systemd/system/{UNIT}"},
                {"src": "share/user.conf", "dest": "/etc/sysusers.d/aod-test.conf"},
            ],
            "units": [UNIT],
            "health": [["/opt/aod/current/bin/status"]],
            **more,
        }

    def run(self, arguments: dict[str, Any], *options: str) -> PlaybookRun:
        return self._ansible.run(self._playbook, *options, variables={"activation": arguments})

    def activate(self, arguments: dict[str, Any], *options: str) -> dict[str, Any]:
        """The module's result, which must be none of a failure."""
        run = self.run(arguments, *options)
        assert run.exit_code == 0, run.output
        result: dict[str, Any] = json.loads(self.host.run(["cat", "/run/activated"]).stdout)
        return result

    def fail(self, arguments: dict[str, Any]) -> str:
        """The output of a run that must fail."""
        run = self.run(arguments)
        assert run.recap[self.host.name]["failed"] == 1, run.output
        return run.output

    def kill_at(self, word: str) -> None:
        """The next time that the module runs this program with this word, it is killed."""
        for name in ("systemctl", "systemd-sysusers"):
            self._put(f"/usr/local/sbin/{name}", _KILLER, "0755")
        self._put("/run/kill-at", f"{word}\n", "0644")

    def serving(self) -> str:
        """The version whose process runs, and its id; empty when none does."""
        words = "systemctl -q is-active aod-agent && cat /run/serving || true"
        return self.host.run(words).stdout.strip()

    def enabled(self) -> bool:
        return self.host.run(["systemctl", "-q", "is-enabled", UNIT], check=False).returncode == 0

    def footprint(self) -> str:
        """Every file, link and mode where an activation may write."""
        places = "/opt/aod /etc/aod /etc/systemd/system /etc/sysusers.d"
        listing = self.host.run(
            f"for f in $(find {places} 2>/dev/null | sort); do"
            " stat -c '%A %U:%G %N' $f; [ -f $f ] && sha256sum $f; done; true"
        ).stdout
        return re.sub(r"\n+", "\n", listing)

    def _put(self, path: str, content: str, mode: str) -> None:
        self.host.run(
            f"mkdir -p {Path(path).parent}; cat > {path} <<'END'\n{content}END\nchmod {mode} {path}"
        )
