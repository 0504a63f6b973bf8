"""Asks for a probe that cannot be had, and checks that nothing of the attempt is left."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from agent.kernel.probe import ProbeFault, load_probe


def fault_of(*command: str, timeout_sec: float = 60) -> ProbeFault:
    """What `load_probe` says about ``command``; the agent must keep no descriptor of it."""
    gc.collect()
    before = open_descriptors()
    with pytest.raises(ProbeFault) as caught:
        load_probe(command=command, timeout_sec=timeout_sec)
    fault = caught.value
    del caught
    gc.collect()
    assert open_descriptors() == before
    assert fault.message
    assert fault.remedy
    return fault


def open_descriptors() -> set[str]:
    """Everything that is open but the directory being listed."""
    names = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue
    return {f"{number} {target}" for number, target in names.items() if "/fd" not in target}
