"""A user without rights is told so, instead of meeting a traceback or waiting for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.kernel.module_events import wait_for_cifs
from agent.kernel.rights import missing_rights
from agent.service.stop_signal import StopSignal
from bpf.load_fault import LoadFault
from bpf.preflight import require_tracepoints
from bpf.probe_set import CIFS
from tests.rights import unprivileged

READABLE = Path("/sys/kernel")


@pytest.fixture
def tracefs(tmp_path: Path) -> Path:
    """As the kernel mounts it: its first directory is for root."""
    (tmp_path / "tracing" / "events" / "cifs").mkdir(parents=True)
    return tmp_path / "tracing"


def test_missing_rights_are_a_fault_with_its_cure(tracefs: Path) -> None:
    with unprivileged(tracefs):
        fault = missing_rights()
    assert fault is not None
    assert fault.kind == "not_root"
    assert "run as root" in fault.remedy


def test_a_closed_tracefs_is_no_tracefs(tracefs: Path) -> None:
    with unprivileged(tracefs), pytest.raises(LoadFault) as caught:
        require_tracepoints(CIFS.tracepoints, places=[tracefs])
    assert caught.value.kind == "no_tracefs"
    assert "CAP_DAC_READ_SEARCH" in caught.value.remedy


def test_a_closed_tracefs_does_not_hide_the_other_signs(tracefs: Path) -> None:
    with unprivileged(tracefs):
        assert wait_for_cifs(StopSignal().fd, [tracefs / "events" / "cifs", READABLE])
