"""``aod-shipper status --wait``: whether a service that was just started is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.service.presence import NotRunningError, wait_until_running
from shipper.service.reporter import Reporter
from shipper.spools.spool_lock import ShippingLock
from shipper.spools.state_directory import state_directory
from shipper.status.shipper_state import PAUSED, WAITING, FaultNote, ShipperState, StateFile
from tests.shipper_support import new_spool

FAULT = FaultNote("destination", "AccessDenied", "allow it", "2026-01-01T14:00:00+00:00")


@pytest.fixture
def config(tmp_path: Path) -> ShipperConfig:
    spool = new_spool(tmp_path / "spool")
    return ShipperConfig(spool.root, DirectoryDestination(tmp_path / "bucket"))


@pytest.fixture
def state_file(config: ShipperConfig) -> StateFile:
    return StateFile(state_directory(config))


def test_a_service_that_starts_is_there_whatever_the_store_said(
    config: ShipperConfig, state_file: StateFile
) -> None:
    state_file.write(ShipperState(PAUSED, [FAULT], process=1, last_success="2026-01-01"))
    with ShippingLock(config):
        Reporter(state_file).start()
        wait_until_running(config, 0)
    state = state_file.read()
    assert (state.state, state.process) == (WAITING, os.getpid())
    assert (state.faults, state.last_success) == ([FAULT], "2026-01-01")


def test_the_state_of_another_run_is_not_taken_for_the_service(
    config: ShipperConfig, state_file: StateFile
) -> None:
    state_file.write(ShipperState(PAUSED, process=1))
    with ShippingLock(config), pytest.raises(NotRunningError, match="has not written its state"):
        wait_until_running(config, 0.3)


def test_without_a_service_the_reason_says_where_to_look(
    config: ShipperConfig, state_file: StateFile
) -> None:
    state_file.write(ShipperState(PAUSED, process=os.getpid()))
    with pytest.raises(NotRunningError, match="systemctl status aod-shipper"):
        wait_until_running(config, 0)
