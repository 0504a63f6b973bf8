from __future__ import annotations

import numpy as np

from agent.events.trace_totals import histograms_of
from agent.kernel.kernel_filter import apply_filter, kernel_settings, record_everything
from bpf import abi
from tests.rules import error_rule, latency_rule

READ, WRITE, CLOSE = 8, 9, 6


def test_the_filter_is_the_union_of_the_rules() -> None:
    settings = kernel_settings(
        [
            latency_rule(track={READ: 50.0, WRITE: 0.0}),
            latency_rule(track={READ: 20.0, CLOSE: 0.5}),
            error_rule(track={13, 9_999}),
        ]
    )
    slow_ns = settings["slow_ns"][0]
    assert {i: int(slow_ns[i]) for i in np.flatnonzero(slow_ns)} == {
        READ: 20_000_000,
        WRITE: 1,
        CLOSE: 500_000,
    }
    assert np.flatnonzero(settings["error_tracked"][0]).tolist() == [13, abi.ERRNOS - 1]


def test_no_rules_report_nothing() -> None:
    assert not kernel_settings([]).tobytes().strip(b"\0")


def test_a_trace_passes_as_the_kernel_would_let_it() -> None:
    events = np.zeros(5, abi.EVENT)
    events["smbcommand"] = [READ, READ, WRITE, WRITE, 77]
    events["metric_latency_ns"] = [20_000_000, 19_999_999, 10**9, 30_000_000, 10**10]
    events["retval"] = [0, 0, -13, -13, -2]
    settings = kernel_settings(
        [latency_rule(track={READ: 20.0, WRITE: 100.0}), error_rule(track={13})]
    )
    passed = apply_filter(settings, events)
    assert passed["metric_latency_ns"].tolist() == [20_000_000, 10**9, 30_000_000]
    slower, failed = abi.TOOL_SMBSLOWER, abi.TOOL_SMBIOSNOOP
    assert passed["tool"].tolist() == [slower, slower | failed, failed]
    assert len(apply_filter(record_everything(), events)) == 5


def test_histograms_put_a_latency_between_its_powers_of_two() -> None:
    events = np.zeros(5, abi.EVENT)
    events["smbcommand"] = [READ, READ, READ, WRITE, 300]
    events["metric_latency_ns"] = [0, 1, 2**20, 2**20 - 1, 2**63]
    histograms = histograms_of(events)
    found = {(int(c), int(b)): int(histograms[c, b]) for c, b in np.argwhere(histograms)}
    assert found == {(READ, 1): 2, (READ, 21): 1, (WRITE, 20): 1, (abi.COMMANDS - 1, 63): 1}
