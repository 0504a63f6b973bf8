#!/usr/bin/python
# Copyright: AOD Fleet
# Apache-2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What one host says of its agent and its shipper."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Tell how agent and shipper of a host are
version_added: 0.1.0
description:
  - Asks C(aod-agent status) and C(aod-shipper status) of the current release.
  - Only reads. Trouble is told of in RV(host.faults), with a remedy; it does not fail the task.
options:
  prefix:
    description: Where the releases lie.
    type: path
    default: /opt/aod
  expected:
    description: Parts that a host with a release is to have; one that it lacks is a fault.
    type: list
    elements: str
    choices: [agent, shipper]
    default: []
  timeout_sec:
    description: How long one answer may take, in seconds.
    type: int
    default: 30
attributes:
  check_mode:
    description: Can run in check mode without changing anything, because it never does.
    support: full
author:
  - AOD Fleet
"""

EXAMPLES = r"""
- name: Ask agent and shipper
  aod.fleet.status:
  register: answer

- name: Show what is wrong
  ansible.builtin.debug:
    var: answer.host.faults
"""

RETURN = r"""
host:
  description: How the host is.
  returned: always
  type: dict
  contains:
    version:
      description: The current release; empty when none is installed.
      type: str
    previous_version:
      description: The release to which rollback.yml goes back; empty when there is none.
      type: str
    kernel:
      description: The running kernel's release.
      type: str
    headers:
      description:
        - C(exact) for those of the running kernel, C(fallback) for those of another, C(none).
        - Empty where no agent is.
      type: str
    probes:
      description:
        - C(attached), C(waiting) for the cifs module, C(loading), C(detached) by order, C(none).
        - Empty where no agent is.
      type: str
    pending:
      description: How many bundles wait to be shipped.
      type: int
    oldest_pending_sec:
      description: Age of the oldest of them; null when none waits.
      type: float
    last_upload:
      description: When a bundle was delivered last, in UTC; null when none was.
      type: str
    last_upload_sec:
      description: How long ago that was by the host's own clock.
      type: float
    faults:
      description: What is in the way, by C(part) (agent or shipper), C(message) and C(remedy).
      type: list
      elements: dict
"""

import json
import os
import time
from calendar import timegm
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

UNITS = {"agent": "aod-agent.service", "shipper": "aod-shipper.service"}
UNIT_DIRECTORY = Path("/etc/systemd/system")
MEGABYTE = 1_000_000
PROBES = {
    "watching": "attached",
    "waiting_for_cifs": "waiting",
    "starting": "loading",
    "loading": "loading",
    "detached": "detached",
}
HEADERS = {
    "exact": "exact",
    "kheaders": "exact",
    "environment": "exact",
    "installed": "fallback",
    "none": "none",
}
# What its loader would find: an agent that waits for cifs does not know yet.
FIND_HEADERS = """
import json
from bpf.headers import find_headers
from bpf.load_fault import LoadFault
try:
    print(json.dumps({"kind": find_headers().kind}))
except LoadFault as fault:
    print(json.dumps({"kind": "none", "message": fault.message, "remedy": fault.remedy}))
"""


class AnswerError(Exception):
    """A command gave no answer; the text says why."""


class Host:
    """Collects the answers of this host into ``report``."""

    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        prefix = Path(module.params["prefix"])
        self._current = prefix / "current"
        self._timeout_sec: int = module.params["timeout_sec"]
        self._expected: list[str] = module.params["expected"]
        self.report: dict[str, Any] = {
            "version": _target(self._current),
            "previous_version": _target(prefix / "previous"),
            "kernel": os.uname().release,
            "headers": "",
            "probes": "",
            "pending": 0,
            "oldest_pending_sec": None,
            "last_upload": None,
            "last_upload_sec": None,
            "faults": [],
        }

    def look(self) -> None:
        """Ask every part whose unit is installed; name those that ought to be, and are not."""
        for part, ask in (("agent", self._ask_agent), ("shipper", self._ask_shipper)):
            if (UNIT_DIRECTORY / UNITS[part]).exists():
                try:
                    ask()
                except AnswerError as error:
                    self._fault(part, str(error), f"journalctl -n 50 -u {UNITS[part]}")
                except (KeyError, TypeError, AttributeError) as error:
                    words = f"answers in a form that this collection does not know: {error!r}"
                    self._fault(part, words, "bring collection and release to the same version")
            elif part in self._expected and self.report["version"]:
                self._fault(part, "is not installed", "ansible-playbook aod.fleet.site")

    def _ask_agent(self) -> None:
        self.report.update(headers="none", probes="none")
        # -I: root runs nothing that lies where the user who logged in happens to be.
        found = self._answer(["python", "-I", "-c", FIND_HEADERS])
        self.report["headers"] = HEADERS[found["kind"]]
        if found["kind"] == "none":
            self._fault("agent", found["message"], found["remedy"])
        status = self._answer(["aod-agent", "status", "--json"])
        if "error" in status:
            raise AnswerError(status["error"])
        source, disk = status["source"], status["disk"]
        self.report["probes"] = PROBES.get(source["state"], "none")
        if "headers" in source:
            self.report["headers"] = HEADERS[source["headers"]["kind"]]
        if source["state"] == "detached":
            self._fault("agent", "told to let go of cifs: it does not watch", "aod-agent attach")
        elif source["state"] not in PROBES:
            message = source.get("message") or f"does not watch: {source['state']}"
            self._fault("agent", message, source.get("remedy") or "aod-agent status")
        if disk["free_bytes"] is not None and disk["free_bytes"] < disk["floor_bytes"]:
            floor = disk["floor_bytes"] // MEGABYTE
            message = f"makes no bundles: less than {floor} MB are free at {status['spool']}"
            self._fault("agent", message, "make room there, or lower cleanup.min_free_mb")

    def _ask_shipper(self) -> None:
        status = self._answer(["aod-shipper", "status", "--json"])
        state, counts, oldest = status["state"], status["counts"], status["oldest_pending"]
        shipped_at = (status["last_delivery"] or {}).get("shipped_at")
        last = max((one for one in (state["last_success"], shipped_at) if one), default=None)
        self.report.update(
            pending=counts["pending"],
            oldest_pending_sec=oldest["age_sec"] if oldest else None,
            last_upload=last,
            last_upload_sec=max(0.0, time.time() - _seconds(last)) if last else None,
        )
        if status["running"] is None:
            raise AnswerError("the shipper does not run")
        for fault in state["faults"]:
            self._fault("shipper", fault["message"], fault["remedy"])
        if counts["fault"]:
            self._fault("shipper", counts["fault"], "aod-shipper status")
        if counts["quarantined"]:
            message = f"bundles in quarantine: {counts['quarantined']}"
            self._fault("shipper", message, "aod-shipper status, then aod-shipper why ID")

    def _answer(self, command: list[str]) -> dict[str, Any]:
        """The JSON that a program of the release prints, whatever its exit status."""
        program = self._current / "bin" / command[0]
        if not program.exists():
            raise AnswerError(f"there is no {program}")
        limited = ["timeout", str(self._timeout_sec), str(program), *command[1:]]
        code, out, err = self._module.run_command(limited, environ_update={"LC_ALL": "C.UTF-8"})
        try:
            answer: dict[str, Any] = json.loads(out)
        except ValueError:
            said = (err.strip() or out.strip()).splitlines() or [f"exit status {code}"]
            raise AnswerError(f"{command[0]}: {said[-1]}") from None
        return answer

    def _fault(self, part: str, message: str, remedy: str) -> None:
        fault = {"part": part, "message": message, "remedy": remedy}
        if fault not in self.report["faults"]:  # an agent without headers says so itself, too
            self.report["faults"].append(fault)


def _target(link: Path) -> str:
    return os.readlink(link) if link.is_symlink() else ""


def _seconds(moment: str) -> int:
    """Since the epoch, of an ISO 8601 time in UTC; whole seconds."""
    return timegm(time.strptime(moment[:19], "%Y-%m-%dT%H:%M:%S"))


def main() -> None:
    """The module's entry point."""
    module = AnsibleModule(
        argument_spec={
            "prefix": {"type": "path", "default": "/opt/aod"},
            "expected": {
                "type": "list",
                "elements": "str",
                "choices": ["agent", "shipper"],
                "default": [],
            },
            "timeout_sec": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    host = Host(module)
    host.look()
    module.exit_json(changed=False, host=host.report)


if __name__ == "__main__":
    main()
