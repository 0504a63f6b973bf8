"""All victims."""

from __future__ import annotations

from tests.crash_matrix.agent_victim import AGENT, FIRST_START
from tests.crash_matrix.ship_victim import SHIP

VICTIMS = (AGENT, FIRST_START, SHIP)
