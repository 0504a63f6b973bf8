"""What `make fleet-lab` does first, in the topology without a relay and with two clients."""

from __future__ import annotations

import pytest

from tests.fleet_lab import steps
from tests.fleet_lab.record import Step
from tests.fleet_lab.steps import Fleet

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("name", ["install", "evidence", "again"])
def test_step(name: str, fleet: Fleet) -> None:
    steps.STEPS[name](fleet, Step("direct", name))
