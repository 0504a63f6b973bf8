"""Fixtures of every test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.go_programs import MINIO, VERSITYGW
from tests.minio_server import MinioServer
from tests.requirements import program_or_skip
from tests.second_store import VersityServer
from tests.store_server import StoreServer

# No test asserts a time: the machine may be busy.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

_LINES_KEPT, _CHARACTERS_KEPT = 8, 300


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """One that every user can enter: pytest closes those that it makes."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A running MinIO for all tests; without one they skip, with CI=true they fail."""
    with MinioServer(program_or_skip(MINIO), tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def second_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersityServer]:
    """A running S3 server that is not MinIO, under the same terms."""
    with VersityServer(program_or_skip(VERSITYGW), tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture(params=["minio", "second_store"])
def any_store(request: pytest.FixtureRequest) -> StoreServer:
    """Each store in turn."""
    server: StoreServer = request.getfixturevalue(request.param)
    return server


class FailuresAtOnce:
    """One line for each failure when it happens; pytest shows the rest of it at its end.

    ``kept`` outlives the run: for each failure, how its message begins and how it ends.
    """

    def __init__(self, terminal: pytest.TerminalReporter, kept: Path | None) -> None:
        self._terminal = terminal
        self._kept = kept

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        crash = getattr(report.longrepr, "reprcrash", None)
        lines = (crash.message if crash else report.longreprtext).splitlines() or [""]
        headline = f"{report.nodeid} ({report.when}): {lines[0]}"
        self._terminal.write_line(f"\n{headline}", red=True)
        if self._kept is not None:
            with self._kept.open("a") as kept:
                end = lines[1:][-_LINES_KEPT:]
                kept.writelines(f"{line[:_CHARACTERS_KEPT]}\n" for line in (headline, *end))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--failures", type=Path, metavar="FILE", help="append each failure, in short, to FILE"
    )


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailuresAtOnce(terminal, config.getoption("failures")))
