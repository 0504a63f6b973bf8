"""``aod-agent metrics``, read by Prometheus' own parser."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.config_loader import load_config
from agent.controller import Controller
from agent.metrics import FATES, metrics_text
from agent.service.status_server import StatusServer
from agent.storage.durable_file import temporary_beside
from agent.storage.spool import ARCHIVE, Spool, SpooledBundle
from agent.storage.ulid import new_ulid

CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"


def add(spool: Spool) -> SpooledBundle:
    bundle_id = new_ulid()
    temporary = temporary_beside(spool.path(bundle_id, ARCHIVE))
    temporary.write_bytes(b"evidence")
    return spool.publish(bundle_id, temporary, {"id": bundle_id})


@pytest.fixture
def status(tmp_path: Path) -> dict[str, Any]:
    """Of an agent with a bundle of every fate, as it comes from the socket."""
    config = replace(load_config(CONFIG).config, aod_output_dir=tmp_path / "spool")
    controller = Controller(config, lambda stop: None, lambda: {"state": "watching"}, None)
    spool = controller.spool
    spool.prepare()
    delivered, evicted, bad, *_ = [add(spool) for _ in range(5)]
    spool.write_receipt(delivered.id, {})
    spool.remove(evicted, {"reason": "size"})
    spool.mark_quarantined(bad.id, {"reason": "bad"})
    status: dict[str, Any] = json.loads(json.dumps(controller.status()))
    return status


def samples(text: str) -> dict[tuple[str, str], float]:
    """By (name, the only label's value or '')."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_family_has_help_type_and_samples(status: dict[str, Any]) -> None:
    status["events"] |= {"ring_full": 3, "bad_records": 4}
    text = metrics_text(status)
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families) == text.count("# HELP ")
    for family in families:
        assert family.name.startswith("aod_")
        assert family.documentation
        assert family.type in ("gauge", "counter")
        assert family.samples
        assert all(
            one.name.endswith("_total") == (family.type == "counter") for one in family.samples
        )


def test_the_equation_holds(status: dict[str, Any]) -> None:
    found = samples(metrics_text(status))
    fates = [found["aod_bundles", fate] for fate in FATES]
    assert fates == [1, 2, 1, 1]
    assert found["aod_bundles_made", ""] == sum(fates) == 5
    assert found["aod_spool_bytes", ""] == 4 * 8
    assert found["aod_spool_pending_bytes", ""] == 2 * 8


@pytest.mark.parametrize(
    ("part", "name", "sample"),
    [
        ("events", "commands", ("aod_smb_commands_total", "")),
        ("events", "dispatched", ("aod_events_total", "")),
        ("events", "ring_full", ("aod_events_lost_total", "ring_full")),
        ("events", "bad_records", ("aod_events_lost_total", "bad_records")),
        ("incidents", "opened", ("aod_incidents_total", "")),
        ("incidents", "suppressed", ("aod_incident_triggers_suppressed_total", "")),
        ("collections", "running", ("aod_collections_running", "")),
        *[
            ("collections", name, ("aod_collections_total", name))
            for name in ("collected", "failed", "refused")
        ],
        *[
            ("cleanup", name, ("aod_cleanup_total", name))
            for name in ("removed", "evicted", "folded", "spool_recreated", "failed")
        ],
        ("disk", "free_bytes", ("aod_filesystem_free_bytes", "")),
        ("disk", "floor_bytes", ("aod_filesystem_floor_bytes", "")),
    ],
)
def test_what_is_counted_is_told_in_full(
    status: dict[str, Any], part: str, name: str, sample: tuple[str, str]
) -> None:
    status[part][name] = 9_007_199_254_740_991
    assert samples(metrics_text(status))[sample] == 9_007_199_254_740_991


def test_components_are_told_by_name(status: dict[str, Any]) -> None:
    status["components"]["LogCollector"] |= {"restarts": 7, "state": "backing_off"}
    status["components"]["SpaceWatcher"]["state"] = "running"
    found = samples(metrics_text(status))
    assert found["aod_component_restarts_total", "LogCollector"] == 7
    assert found["aod_component_running", "LogCollector"] == 0
    assert found["aod_component_running", "SpaceWatcher"] == 1


def test_a_spool_that_cannot_be_counted_is_no_spool_of_zero_bundles(status: dict[str, Any]) -> None:
    status["bundles"] |= {"fault": "Not a directory", "made": 0}
    status["disk"]["free_bytes"] = None
    found = samples(metrics_text(status))
    assert found["aod_spool_readable", ""] == 0
    assert not [name for name, _ in found if name.startswith("aod_bundles")]
    assert ("aod_filesystem_free_bytes", "") not in found


@given(version=st.text(st.characters(exclude_categories=["Cs"])))
def test_no_label_breaks_the_format(version: str) -> None:
    status = {
        "version": version,
        "uptime_sec": 0.1,
        "source": {"state": "loading"},
        "events": {"commands": 0, "dispatched": 0},
        "incidents": {"opened": 0, "suppressed": 0, "open": []},
        "collections": dict.fromkeys(("collected", "failed", "refused", "running"), 0),
        "cleanup": dict.fromkeys(("removed", "evicted", "folded", "spool_recreated", "failed"), 0),
        "bundles": {"fault": "x"},
        "disk": {"free_bytes": None, "floor_bytes": 0},
        "components": {},
    }
    text = metrics_text(status)
    assert samples(text)["aod_agent_info", version] == 1


def run_metrics(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agent.cli", "metrics", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_without_an_agent_that_is_told(tmp_path: Path) -> None:
    output = tmp_path / "aod.prom"
    for arguments in ((), ("--output", output)):
        result = run_metrics("--runtime-dir", tmp_path, *arguments)
        assert result.returncode == 3
        text = output.read_text() if arguments else result.stdout
        assert samples(text) == {("aod_agent_up", ""): 0}


def test_of_a_running_agent(tmp_path: Path, status: dict[str, Any]) -> None:
    server = StatusServer(tmp_path, lambda: status)
    server.open()
    thread = threading.Thread(target=server.run)
    thread.start()
    output = tmp_path / "aod.prom"
    try:
        printed = run_metrics("--runtime-dir", tmp_path)
        written = run_metrics("--runtime-dir", tmp_path, "--output", output)
        nowhere = run_metrics("--runtime-dir", tmp_path, "--output", tmp_path / "no" / "aod.prom")
    finally:
        server.stop()
        thread.join(20)
    assert (printed.returncode, written.returncode) == (0, 0), printed.stderr
    assert samples(printed.stdout)["aod_agent_up", ""] == 1
    assert output.read_text() == printed.stdout == metrics_text(status)
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert nowhere.returncode == 1
    assert "No such file" in nowhere.stderr
