"""Probes the program can do without: why one is left out, and that the rest loads all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.kernel.probe import load_probe
from bpf.preflight import function_obstacle, obstacle
from bpf.probe_set import CIFS, LOSSES, KernelFunction
from tests.ebpf_host import PRCTL_LOADER, Kernel, ebpf_host

pytestmark = [pytest.mark.ebpf, pytest.mark.usefixtures("ebpf_host")]
__all__ = ["ebpf_host"]

READ = 8
NEEDS_FLAG = """
#ifndef OPTIONAL_FLAG
#error the probe's own flag is missing
#endif
"""
READS_FIELD = (
    "int on_optional(struct tracepoint__syscalls__{event} *args) {{ return args->{field}; }}"
)


def load_with(
    directory: Path, code: str, event: str, fields: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The description and the programs of a probe that works, with ``code`` optional in it."""
    source = directory / "optional.c"
    source.write_text(NEEDS_FLAG + code)
    options = ["--optional-source", str(source), "--optional-event", event]
    for field in fields:
        options += ["--optional-field", field]
    probe = load_probe(command=[*PRCTL_LOADER, *options])
    try:
        kernel = Kernel(probe)
        kernel.run(READ)
        assert kernel.probe.histograms[READ].sum() == 1
        return probe.description, list(probe.programs)
    finally:
        probe.close()


def reasons(description: dict[str, Any]) -> str:
    """Why the probe is not attached, as the description has it in its two places."""
    assert description["reconnect"]["attached"] is False
    reason = str(description["reconnect"]["reason"])
    assert f"{LOSSES['reconnect']}: {reason}" in description["missing"]
    return reason


def test_optional_tracepoint_is_attached(tmp_path: Path) -> None:
    code = READS_FIELD.format(event="sys_enter_getpriority", field="which")
    description, programs = load_with(tmp_path, code, "sys_enter_getpriority", ("which", "int who"))
    assert description["reconnect"] == {"attached": True, "reason": ""}
    assert not any(LOSSES["reconnect"] in note for note in description["missing"])
    assert programs == ["on_prctl", "on_optional"]


def test_kernel_without_the_tracepoint(tmp_path: Path) -> None:
    code = READS_FIELD.format(event="sys_enter_no_such_call", field="which")
    description, programs = load_with(tmp_path, code, "sys_enter_no_such_call")
    assert reasons(description) == "the kernel has no tracepoint syscalls:sys_enter_no_such_call"
    assert programs == ["on_prctl"]


def test_tracepoint_without_a_field_is_not_compiled(tmp_path: Path) -> None:
    code = READS_FIELD.format(event="sys_enter_getpriority", field="hich")
    fields = ("which", "hich", "__data_loc char[] who")
    description, programs = load_with(tmp_path, code, "sys_enter_getpriority", fields)
    reason = reasons(description)
    assert reason.endswith("sys_enter_getpriority has no hich, __data_loc char[] who")
    assert programs == ["on_prctl"]


def test_refused_attachment_is_a_reason(tmp_path: Path) -> None:
    code = "int on_optional(u64 *context) { return context[40]; }"
    description, programs = load_with(tmp_path, code, "sys_exit_getpid")
    assert "cannot attach to tracepoint syscalls:sys_exit_getpid" in reasons(description)
    assert programs == ["on_prctl"]


def test_refused_code_is_a_reason(tmp_path: Path) -> None:
    code = "int on_optional(void *context) { return slot_of(1, 1)->pid; }"
    description, _ = load_with(tmp_path, code, "sys_exit_getpid")
    assert "map_value_or_null" in reasons(description)


def test_every_optional_probe_of_cifs_says_what_it_needs() -> None:
    if Path("/sys/kernel/tracing/events/cifs").exists():
        pytest.skip("this machine has cifs")
    assert {probe.name for probe in CIFS.optional} == set(LOSSES)
    for probe in CIFS.optional:
        assert obstacle(probe).startswith(("the kernel has no", "this kernel has no kprobes"))


def test_function_that_cannot_be_probed_is_named(tmp_path: Path) -> None:
    symbols = tmp_path / "kallsyms"
    symbols.write_text("0000 t some_function\n0000 t other\t[cifs]\n")
    here = {"symbols": symbols, "kprobes": tmp_path}
    assert function_obstacle(KernelFunction("other", "on_other"), **here) == ""
    assert "function some" in function_obstacle(KernelFunction("some", "on_some"), **here)
    without = function_obstacle(KernelFunction("other", "on_other"), symbols, tmp_path / "none")
    assert without == "this kernel has no kprobes"
