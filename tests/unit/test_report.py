"""What ``aod-agent status`` prints: everything that is counted, and nothing that is not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config_loader import load_config
from agent.controller import Controller
from agent.report import status_text

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"


@pytest.fixture
def status(tmp_path: Path) -> dict[str, Any]:
    """The status of an agent that has not seen anything, as it comes from the socket."""
    config = replace(load_config(CONFIG).config, aod_output_dir=tmp_path / "spool")
    controller = Controller(config, lambda stop: None, lambda: {"state": "starting"}, None)
    controller.spool.prepare()
    status: dict[str, Any] = json.loads(json.dumps(controller.status()))
    return status


def test_an_agent_without_trouble_has_a_short_status(status: dict[str, Any]) -> None:
    lines = status_text(status).splitlines()
    assert [line.split()[0] for line in lines] == [
        "aod-agent",
        "state",
        "events",
        "incidents",
        "collections",
        "bundles",
        "disk",
    ]


@pytest.mark.parametrize(
    ("part", "name", "value", "text"),
    [
        ("events", "ring_full", 7001, "7,001 lost"),
        ("events", "bad_records", 7002, "7,002 bad records"),
        ("events", "unmatched", 7003, "7,003 replies without"),
        ("events", "collisions", 7004, "7,004 commands that took"),
        ("collections", "failed", 7005, "7,005 failed"),
        ("collections", "refused", 7006, "7,006 refused"),
        ("collections", "last_failure", "the disk is gone", "last failure: the disk is gone"),
        ("cleanup", "removed", 7007, "7,007 removed"),
        ("cleanup", "evicted", 7008, "7,008 evicted"),
        ("cleanup", "failed", 7009, "7,009 failures"),
        ("cleanup", "spool_recreated", 7010, "anew 7,010 times"),
        ("cleanup", "last_failure", "the spool is gone", "last failure: the spool is gone"),
        ("bundles", "pending", 7011, "7,011 pending"),
        ("cleanup", "folded", 7012, "7,012 folded"),
        ("bundles", "quarantined", 7013, "7,013 quarantined"),
        ("disk", "free_bytes", 7014 << 20, "7,014 MB free"),
        ("disk", "free_bytes", 1, "NO new bundles"),
        ("disk", "floor_bytes", 7015 << 20, "floor 7,015 MB"),
        ("disk", "free_bytes", None, "the free space is unknown"),
        ("bundles", "fault", "Not a directory", "cannot be read: Not a directory"),
    ],
)
def test_what_is_counted_is_shown(
    status: dict[str, Any], part: str, name: str, value: object, text: str
) -> None:
    assert text not in status_text(status)
    status[part][name] = value
    assert text in status_text(status)


def test_a_spool_that_cannot_be_read_does_not_hide_the_rest(status: dict[str, Any]) -> None:
    batches = Path(status["spool"]) / "batches"
    batches.rmdir()
    batches.touch()
    config = replace(load_config(CONFIG).config, aod_output_dir=batches.parent)
    controller = Controller(config, lambda stop: None, lambda: {"state": "watching"}, None)
    assert f"cannot be read: [Errno 20] Not a directory: '{batches}'" in status_text(
        controller.status()
    )
