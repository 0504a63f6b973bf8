"""How the collection's modules run programs on a host."""

from __future__ import annotations

import sys

import pytest

from tests.fleet.module_code import module_code


def test_what_a_login_sets_for_python_changes_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services have none of it: a release has to be looked at as it will run."""
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    done = module_code("module_utils.commands").run([sys.executable, "-c", "print('runs')"])
    assert (done.exit_code, done.stdout) == (0, "runs\n")
