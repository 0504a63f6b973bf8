"""The shipper's figures, read by Prometheus' own parser."""

import os
import stat
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.metrics import FATES
from agent.storage.tombstone import make_tombstone
from shipper.configuration.schema import DirectoryDestination, ShipperConfig
from shipper.faults import HostFault
from shipper.service.metrics_outlets import CONTENT_TYPE, MetricsFile, MetricsPort
from shipper.spools.lock_holder import Holder
from shipper.status.metrics import PAUSING_KINDS, metrics_text
from shipper.status.shipper_state import PAUSED, SHIPPING, FaultNote, ShipperState
from shipper.status.status import read_status
from tests.shipper_support import NOON, add_bundle, new_spool, run_shipper

NOW = NOON / 1000 + 60
SINCE = "2026-01-01T12:00:30+00:00"
STATE = ShipperState(
    SHIPPING,
    started="2026-01-01T12:00:00+00:00",
    shipped_bytes=9_007_199_254_740_991,
    failures={"network": 3, "bundle": 1},
    version='1.0 "x"',
)


def samples(text):
    """By (name, the only label's value or '')."""
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def config(tmp_path):
    """Of a central host with a bundle of every fate in its spool and in the inbox of web-1."""
    for root in (tmp_path / "spool", tmp_path / "inbox" / "web-1"):
        spool = new_spool(root)
        delivered, evicted, bad, *_ = [add_bundle(spool, time_ms=NOON + 1000 * n) for n in range(5)]
        spool.write_receipt(delivered.id, {"shipped_at": SINCE})
        spool.remove(evicted, make_tombstone(evicted, evicted.manifest(), SINCE))
        spool.mark_quarantined(bad.id, {})
    heartbeat = tmp_path / "inbox" / "web-1" / "heartbeat.json"
    heartbeat.write_text("{}")
    os.utime(heartbeat, (NOW - 5, NOW - 5))
    new_spool(tmp_path / "inbox" / "web-2")
    destination = DirectoryDestination(tmp_path / "bucket")
    return ShipperConfig(tmp_path / "spool", destination, tmp_path / "inbox")


@pytest.fixture
def status(config):
    return replace(read_status(config, "store", NOW), state=STATE, running=Holder(1))


def test_every_family_has_help_type_and_samples(status):
    text = metrics_text(status)
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families) == text.count("# HELP ")
    for family in families:
        assert family.name.startswith("aod_shipper_")
        assert family.documentation
        assert family.type in ("gauge", "counter")
        assert family.samples
        assert all(
            one.name.endswith("_total") == (family.type == "counter") for one in family.samples
        )


def test_the_equation_holds_over_all_spools(status):
    found = samples(metrics_text(status))
    fates = [found["aod_shipper_bundles", fate] for fate in FATES]
    assert fates == [2, 4, 2, 2]
    assert found["aod_shipper_bundles_made", ""] == sum(fates) == 10
    assert found["aod_shipper_pending_bytes", ""] == 4 * 8
    assert found["aod_shipper_pending_tombstones", ""] == 2
    assert found["aod_shipper_oldest_pending_age_seconds", ""] == 57


def test_each_host_has_its_series(status):
    found = samples(metrics_text(status))
    assert [found[f"aod_shipper_host_{fate}_bundles", "web-1"] for fate in FATES] == [1, 2, 1, 1]
    assert [found[f"aod_shipper_host_{fate}_bundles", "web-2"] for fate in FATES] == [0] * 4
    assert found["aod_shipper_host_pending_bytes", "web-1"] == 16
    assert found["aod_shipper_host_oldest_pending_age_seconds", "web-1"] == 57
    assert found["aod_shipper_host_last_heartbeat_timestamp_seconds", "web-1"] == int(NOW - 5)
    assert ("aod_shipper_host_last_heartbeat_timestamp_seconds", "web-2") not in found


def test_host_without_inboxes_has_no_series_of_hosts(status):
    assert "aod_shipper_host_" not in metrics_text(replace(status, sources=status.sources[:1]))


def test_what_the_service_counts_is_told_in_full(status):
    found = samples(metrics_text(status))
    assert found["aod_shipper_shipped_bytes_total", ""] == 9_007_199_254_740_991
    failures = {kind: found["aod_shipper_failures_total", kind] for kind in PAUSING_KINDS}
    assert failures == {"network": 3, "destination": 0, "host": 0}
    assert found["aod_shipper_failures_total", "bundle"] == 1
    assert found["aod_shipper_info", '1.0 "x"'] == 1
    assert found["aod_shipper_start_time_seconds", ""] == NOON / 1000
    assert found["aod_shipper_up", ""] == 1


def test_last_success_is_the_newest_that_anybody_knows(status):
    name = ("aod_shipper_last_success_timestamp_seconds", "")
    assert samples(metrics_text(status))[name] == NOON / 1000 + 30
    later = replace(STATE, last_success="2026-01-01T12:00:40+00:00")
    assert samples(metrics_text(replace(status, state=later)))[name] == NOON / 1000 + 40


def test_pause_is_told_by_the_kind_of_its_fault(status):
    def paused(state, **changes):
        found = samples(metrics_text(replace(status, state=state, **changes)))
        return [found["aod_shipper_paused", kind] for kind in PAUSING_KINDS]

    away = FaultNote("network", "away", "look", SINCE)
    of_one = replace(away, kind="host", bundle="X")
    assert paused(STATE) == [0, 0, 0]
    assert paused(replace(STATE, state=PAUSED, faults=[away, of_one])) == [1, 0, 0]
    assert paused(replace(STATE, faults=[away])) == [0, 0, 0]
    assert paused(replace(STATE, state=PAUSED, faults=[away]), running=None) == [0, 0, 0]


def test_before_a_service_ever_ran_there_is_nothing_to_count_from(status):
    found = samples(metrics_text(replace(status, state=ShipperState(), running=None)))
    assert found["aod_shipper_up", ""] == 0
    assert ("aod_shipper_shipped_bytes_total", "") not in found


def test_spool_that_cannot_be_counted_is_no_spool_of_zero_bundles(config):
    (config.spool / "history.json").write_text("[]")
    (config.inbox / "web-1" / "history.json").write_text("[]")
    found = samples(metrics_text(read_status(config, "store", NOW)))
    assert found["aod_shipper_spool_readable", ""] == 0
    assert ("aod_shipper_bundles", "pending") not in found
    assert ("aod_shipper_host_pending_bytes", "web-1") not in found
    assert found["aod_shipper_host_pending_bytes", "web-2"] == 0


@pytest.fixture
def narrow_umask():
    old = os.umask(0o027)
    yield
    os.umask(old)


@pytest.mark.usefixtures("narrow_umask")
def test_file_is_replaced_as_a_whole_and_for_everybody(tmp_path):
    path = tmp_path / "aod-shipper.prom"
    (tmp_path / ".aod-shipper.prom.0badcafe.tmp").write_text("of a killed run")
    for text in ("one 1\n", "two 2\n"):
        MetricsFile(path).write(text)
        assert path.read_text() == text
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def fetch(port, path="/metrics"):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(f"http://127.0.0.1:{port}{path}", timeout=20)


def test_port_answers_prometheus_and_nobody_from_outside():
    port = MetricsPort(0, lambda: "aod_shipper_up 1\n")
    try:
        with fetch(port.port) as answer:
            assert answer.read() == b"aod_shipper_up 1\n"
            assert answer.headers["Content-Type"] == CONTENT_TYPE
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(port.port, "/etc/passwd")
        lines = Path("/proc/net/tcp").read_text().splitlines()
        assert any(f"0100007F:{port.port:04X} 00000000:0000 0A" in line for line in lines)
        with pytest.raises(HostFault, match=r"metrics\.port"):
            MetricsPort(port.port, lambda: "")
    finally:
        port.close()
    with pytest.raises(urllib.error.URLError):
        fetch(port.port)


def test_port_survives_a_spool_that_cannot_be_read():
    answers = [PermissionError("closed"), "up 1\n"]

    def make_text():
        if isinstance(answers[0], OSError):
            raise answers.pop(0)
        return answers[0]

    port = MetricsPort(0, make_text)
    try:
        with pytest.raises(urllib.error.HTTPError, match="500"):
            fetch(port.port)
        with fetch(port.port) as answer:
            assert answer.read() == b"up 1\n"
    finally:
        port.close()


def test_command_prints_and_writes_the_same(tmp_path):
    new_spool(tmp_path / "spool")
    path = tmp_path / "shipper.yaml"
    path.write_text(f"spool: {tmp_path / 'spool'}\ndestination: {{type: directory, path: /b}}\n")
    printed = run_shipper("metrics", "--config", path)
    written = run_shipper("metrics", "--output", tmp_path / "x.prom", "--config", path)
    nowhere = run_shipper("metrics", "--output", tmp_path / "no" / "x.prom", "--config", path)
    assert (printed.returncode, written.returncode, nowhere.returncode) == (0, 0, 1)
    assert (tmp_path / "x.prom").read_text() == printed.stdout
    assert samples(printed.stdout)["aod_shipper_up", ""] == 0
    assert "No such file" in nowhere.stderr


def test_every_metric_stands_in_the_documentation(status):
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for family in text_string_to_metric_families(metrics_text(status)):
        name = family.samples[0].name
        for fate in FATES:
            name = name.replace(f"_host_{fate}_bundles", "_host_<fate>_bundles")
        assert f"`{name}" in text, name
