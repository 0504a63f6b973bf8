"""``aod-shipper fleet``: heartbeats that hosts put into a directory and a real MinIO."""

import io
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import pytest

from agent.service.stop_signal import StopSignal
from shipper.cli import main
from shipper.configuration.loader import load_config
from shipper.destinations.destination import open_destination
from shipper.destinations.document import Document
from shipper.destinations.object_key import heartbeat_key
from shipper.status.heartbeat import heartbeat, relayed_heartbeat
from shipper.status.shipper_state import PAUSED, FaultNote, ShipperState
from shipper.status.status import read_status
from tests.shipper_support import add_bundle, new_spool, write_key

INTERVAL_SEC = 900


@pytest.fixture(params=["directory", pytest.param("minio", marks=pytest.mark.minio)])
def config(request, tmp_path):
    path = tmp_path / "shipper.yaml"
    text = f"spool: {tmp_path / 'spool'}\nprefix: fleet/berlin\ndestination:\n"
    if request.param == "directory":
        path.write_text(f"{text}  type: directory\n  path: {tmp_path / 'bucket'}\n")
        return path
    minio = request.getfixturevalue("minio")
    key = write_key(
        tmp_path / "key",
        f"aws_access_key_id = {minio.access_key}",
        f"aws_secret_access_key = {minio.secret_key}",
    )
    path.write_text(
        f"{text}  type: s3\n  bucket: {minio.create_bucket()}\n  region: us-east-1\n"
        f"  endpoint_url: {minio.endpoint_url}\n  addressing_style: path\n"
        f"  credentials_file: {key}\n"
    )
    return path


@pytest.fixture
def beat(config, tmp_path):
    """A function that puts the heartbeat of a host, as it was some seconds ago."""
    loaded = load_config(config).config
    destination = open_destination(loaded, StopSignal())
    spool = new_spool(tmp_path / "spool")
    add_bundle(spool, b"12", int(time.time() * 1000) - 7_200_000)

    def put(host, age_sec=0.0, state=None, interval_sec=INTERVAL_SEC):
        status = read_status(loaded, "store", time.time() - age_sec)
        status = replace(status, state=state or ShipperState("idle"))
        document = heartbeat(status, host, "6.1.0", loaded.prefix, interval_sec)
        destination.put_document(document)
        return document

    return put


def put(config, key, content):
    loaded = load_config(config).config
    open_destination(loaded, StopSignal()).put_document(Document("heartbeat", "x", key, content))


def fleet(config, *arguments):
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        status = main(["fleet", *arguments, "--config", str(config)])
    return status, output.getvalue(), errors.getvalue()


def test_silent_hosts_come_first_and_are_an_alarm(config, beat):
    for host in ("web-2", "web-1", "web-3"):
        beat(host, age_sec=3 * INTERVAL_SEC + 60 if host == "web-3" else 60)
    status, output, _ = fleet(config)
    assert status == 1
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert [line.split()[0] for line in lines[1:4]] == ["web-3", "web-1", "web-2"]
    assert lines[1].startswith("web-3 SILENT 46.0 min ago 1 2 B 1.2 h")
    assert lines[2] == "web-1 idle 1.0 min ago 1 2 B 2.0 h 0 0"
    assert lines[4] == "3 hosts, 1 silent (no heartbeat for 3 intervals)"


def test_fleet_that_lives_is_fine(config, beat):
    beat("web-1")
    denied = FaultNote("destination", "denied\x1b[2J", "allow it", "2026-01-01T12:00:00+00:00")
    beat("web-2", state=ShipperState(PAUSED, [denied]))
    status, output, _ = fleet(config)
    assert status == 0
    assert "\nweb-2: denied\\x1b[2J\n" in output
    status, output, _ = fleet(config, "--json")
    document = json.loads(output)
    assert [host["host"] for host in document["hosts"]] == ["web-1", "web-2"]
    second = document["hosts"][1]
    assert (second["state"], second["pending"], second["evicted"]) == ("paused", 1, 0)
    assert document["without_heartbeat"] == []


def test_interval_is_the_hosts_own_within_reason(config, beat):
    beat("often", age_sec=40, interval_sec=10)
    beat("never", age_sec=30 * 86_400, interval_sec=1e12)
    status, output, _ = fleet(config)
    assert (status, output.count("SILENT")) == (1, 2)


def test_heartbeat_from_the_future_is_as_old_as_its_object(config, beat):
    beat("ahead", age_sec=-86_400)
    _, output, _ = fleet(config, "--json")
    (host,) = json.loads(output)["hosts"]
    assert host["age_sec"] < 3600


def test_relayed_heartbeat_counts_from_when_it_was_made(config, beat):
    document = beat("web-1", age_sec=3 * INTERVAL_SEC + 60)
    relayed = relayed_heartbeat(document.content, "web-1", "fleet/berlin", "now")
    put(config, relayed.key, relayed.content)
    assert fleet(config)[0] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"schema": 1}',
        b'{"schema": 1, "pending": "many", "bundles": [], "faults": [1], "interval_sec": true}',
        b'{"schema": 1, "pending": 1%s, "bundles": {"evicted": -1}}' % (b"0" * 400),
        b'{"schema": 1, "interval_sec": NaN, "time": "+99", "pending": Infinity}',
    ],
)
def test_hostile_heartbeat_is_a_host_that_tells_nothing(config, content):
    put(config, heartbeat_key("fleet/berlin", "web-1"), content)
    status, output, _ = fleet(config, "--json")
    (host,) = json.loads(output)["hosts"]
    assert (status, host["host"], host["silent"]) == (0, "web-1", False)
    assert (host["pending"], host["evicted"], host["fault"]) == (None, None, None)
    assert fleet(config)[0] == 0


def test_folder_without_a_heartbeat_is_named(config, beat):
    beat("web-1")
    put(config, "fleet/berlin/web-9/2026/01/01/x.json", b"{}")
    put(config, "fleet/munich/heartbeat.json", b"{}")
    status, output, _ = fleet(config)
    assert status == 0
    assert output.endswith("\n1 hosts, 0 silent (no heartbeat for 3 intervals)\n"
                           "without any heartbeat: web-9\n")  # fmt: skip


def test_empty_store_has_no_hosts(config):
    put(config, "elsewhere/x", b"{}")
    assert fleet(config)[:2] == (0, "0 hosts, 0 silent (no heartbeat for 3 intervals)\n")


@pytest.mark.minio
def test_more_hosts_than_a_page_of_the_store(tmp_path, minio):
    """A page of S3 holds 1,000 keys."""
    bucket = minio.create_bucket()

    def put_one(number):
        minio.client.put_object(Bucket=bucket, Key=f"web-{number}/heartbeat.json", Body=b"{}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put_one, range(1100)))
    key = write_key(
        tmp_path / "key",
        f"aws_access_key_id = {minio.access_key}",
        f"aws_secret_access_key = {minio.secret_key}",
    )
    path = tmp_path / "shipper.yaml"
    path.write_text(
        f"spool: {tmp_path}\ndestination:\n  type: s3\n  bucket: {bucket}\n  region: us-east-1\n"
        f"  endpoint_url: {minio.endpoint_url}\n  addressing_style: path\n"
        f"  credentials_file: {key}\n"
    )
    _, output, _ = fleet(path)
    assert "\n1100 hosts, 0 silent" in output


def test_behind_a_relay_it_says_where_to_ask(tmp_path):
    path = tmp_path / "relay.yaml"
    path.write_text("spool: /s\ndestination:\n  type: relay\n  host: berlin\n")
    status, _, errors = fleet(path)
    assert (status, errors) == (
        1,
        "aod-shipper: the store is behind the relay: run this on berlin\n",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_closed_directory_names_the_user_to_be(public_directory):
    path = public_directory / "shipper.yaml"
    bucket = public_directory / "bucket"
    bucket.mkdir(0o700)
    path.write_text(f"spool: /s\ndestination:\n  type: directory\n  path: {bucket}\n")
    os.seteuid(65534)
    try:
        status, _, errors = fleet(path)
    finally:
        os.seteuid(0)
    assert status == 1
    assert "Permission denied" in errors
    assert "as root or as aod-shipper" in errors
