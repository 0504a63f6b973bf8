"""Whether this process may load the kernel program, asked before anything is waited for."""

from __future__ import annotations

from agent.kernel.loader_process import ProbeFault
from bpf.load_fault import LoadFault
from bpf.preflight import require_rights


def missing_rights() -> ProbeFault | None:
    """The fault (not_root) that the loader would end with; None when the rights are there."""
    try:
        require_rights()
    except LoadFault as fault:
        return ProbeFault(fault.kind, fault.message, fault.remedy)
    return None
