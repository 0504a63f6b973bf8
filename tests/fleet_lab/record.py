"""What a run of the lab did: a line on the terminal for each step, and build/fleet-lab.json."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


@dataclass
class Step:
    """One step, while it runs and afterwards; ``facts`` are what it found out."""

    part: str
    name: str
    seconds: float = 0.0
    result: str = "running"
    facts: dict[str, Any] = field(default_factory=dict)

    def found(self, **facts: Any) -> None:
        self.facts.update(facts)


class Record:
    """All steps of one run, in their order."""

    def __init__(self, command: str) -> None:
        self.steps: list[Step] = []
        self._command = command
        self._began = datetime.now(timezone.utc)

    @contextmanager
    def step(self, part: str, name: str) -> Iterator[Step]:
        """Time the block. An exception makes it a failed step and goes on its way."""
        step = Step(part, name)
        self.steps.append(step)
        print(f"{part:8} {name:10} ", end="", flush=True)
        started = time.monotonic()
        try:
            yield step
        except BaseException:
            step.result = "FAILED"
            raise
        else:
            step.result = "ok"
        finally:
            step.seconds = round(time.monotonic() - started, 1)
            facts = ", ".join(f"{name} {_plain(value)}" for name, value in step.facts.items())
            print(f"{step.result:7} {step.seconds:7.1f} s  {facts}", flush=True)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "command": self._command,
            "date": self._began.isoformat(timespec="seconds"),
            "ok": all(step.result == "ok" for step in self.steps),
            "steps": [asdict(step) for step in self.steps],
        }
        path.write_text(json.dumps(document, indent=2) + "\n")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_plain(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_plain, value))
    return str(value)
