"""What a test needs and a machine may lack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from tests.go_programs import GoProgram, ProgramUnavailableError, find_program


def skip_or_fail(reason: str) -> NoReturn:
    """Skip with the reason; with CI=true nothing may be missing, so fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def program_or_skip(program: GoProgram) -> Path:
    """The binary of ``program``; without one the test skips, with CI=true it fails."""
    try:
        return find_program(program)
    except ProgramUnavailableError as error:
        skip_or_fail(f"no {program.name}: {error}")
