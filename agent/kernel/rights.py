"""Whether this process may have the program loaded, asked before anything is waited for."""

from __future__ import annotations

from agent.kernel.hand_over import ProbeFault
from agent.kernel.loader_service import offers_loading
from bpf.load_fault import LoadFault
from bpf.preflight import require_rights


def missing_rights() -> ProbeFault | None:
    """The fault (not_root) that the loader would end with; None when the rights are
    there, or the loader's service has them."""
    if offers_loading():
        return None
    try:
        require_rights()
    except LoadFault as fault:
        return ProbeFault(fault.kind, fault.message, fault.remedy)
    return None
