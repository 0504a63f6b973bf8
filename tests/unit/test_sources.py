from pathlib import Path

import pytest

from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.spools.sources import find_sources
from tests.rights import unprivileged


@pytest.fixture
def config(tmp_path):
    return ShipperConfig(
        tmp_path / "spool", DirectoryDestination(Path("/bucket")), tmp_path / "inbox"
    )


def test_host_without_inbox_has_its_own_spool_alone(tmp_path):
    config = ShipperConfig(tmp_path, DirectoryDestination(Path("/bucket")))
    assert [(one.spool.root, one.host) for one in find_sources(config)] == [(tmp_path, None)]


def test_missing_inbox_is_an_empty_one(config):
    assert [one.host for one in find_sources(config)] == [None]


def test_inboxes_come_by_name_and_nothing_else_is_one(config):
    for name in ("web-2", "web-10", ".hidden", "a b", "-x", "..."):
        (config.inbox / name).mkdir(parents=True)
    (config.inbox / "file").write_text("")
    (config.inbox / "link").symlink_to(config.inbox / "web-2")
    sources = find_sources(config)
    assert [one.host for one in sources] == [None, "web-10", "web-2"]
    assert sources[1].spool.batches == config.inbox / "web-10" / "batches"


def test_closed_inbox_is_an_error(config):
    config.inbox.mkdir()
    with unprivileged(config.inbox), pytest.raises(PermissionError):
        find_sources(config)
