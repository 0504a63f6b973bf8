"""Code, catalogue and documentation of the audit trail agree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from agent.service.audit_events import AUDIT_EVENTS

PRIORITIES = {4: "warning", 5: "notice", 6: "info"}  # syslog(3)
ROOT = Path(__file__).parents[2]
# Names of mappings that are unpacked into a call, and what they hold.
UNPACKED = {"_identity": {"bundle", "anomaly", "incident"}}


def recorded() -> Iterator[tuple[str, set[str]]]:
    """Every call of an audit's ``record``: the event and the details that go with it."""
    for path in sorted((ROOT / "agent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if node.func.attr == "record" and "audit" in ast.unparse(node.func.value):
                assert isinstance(node.args[0], ast.Constant), f"{path}: the event is no literal"
                yield str(node.args[0].value), set().union(*map(details, node.keywords))


def details(keyword: ast.keyword) -> set[str]:
    if keyword.arg is not None:
        return {keyword.arg}
    assert isinstance(keyword.value, ast.Call)
    assert isinstance(keyword.value.func, ast.Name)
    return UNPACKED[keyword.value.func.id]


def test_every_event_in_the_code_is_in_the_catalogue_with_its_fields() -> None:
    used: dict[str, set[str]] = {}
    for event, fields in recorded():
        used.setdefault(event, set()).update(fields)
    assert used == {event: set(entry.fields) for event, entry in AUDIT_EVENTS.items()}


def test_the_documentation_is_the_catalogue() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "docs" / "audit.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert rows == [
        [
            f"`{event}`",
            PRIORITIES[entry.priority],
            ", ".join(f"`AOD_{field.upper()}`" for field in entry.fields),
            entry.meaning,
        ]
        for event, entry in AUDIT_EVENTS.items()
    ]
