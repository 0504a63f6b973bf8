"""The action of aod.fleet.report, which runs on the controller; its words: modules/report.py."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display
from ansible_collections.aod.fleet.plugins.plugin_utils.fleet_report import (
    rows_of,
    summary,
    table,
)

from ansible.plugins.action import ActionBase

SCHEMA = 1


class ActionModule(ActionBase):  # type: ignore[misc]
    """Prints the table, and writes the same as JSON where ``path`` says."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ansible's entry point."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            argument_spec={
                "hosts": {"type": "list", "elements": "str", "required": True},
                "path": {"type": "str", "default": ""},
                "unsaid": {"type": "str", "default": "done", "choices": ["done", "not begun"]},
            }
        )
        rows = rows_of(given["hosts"], (task_vars or {})["hostvars"], given["unsaid"])
        document = {
            "schema": SCHEMA,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "summary": summary(rows),
            "hosts": rows,
        }
        # A terminal that cannot be asked has 100 columns.
        Display().display("\n" + table(rows, shutil.get_terminal_size((100, 24)).columns))
        if given["path"]:
            _replace(Path(given["path"]), json.dumps(document, indent=2) + "\n")
        return {**result, "summary": document["summary"]}


def _replace(path: Path, text: str) -> None:
    """Whole or not at all: somebody may be reading the last one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise AnsibleActionFail(f"the report cannot be written: {error}") from error
