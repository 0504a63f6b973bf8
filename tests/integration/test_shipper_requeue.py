"""``aod-shipper retry`` and ``requeue``."""

import ctypes
import json
import os
import struct
from dataclasses import replace

import pytest

from agent.storage.spool import SHIPPED
from agent.storage.tombstone import make_tombstone
from agent.storage.ulid import new_ulid
from shipper.configuration.loader import load_config
from shipper.faults import HostFault
from shipper.inspection.bundle_finder import find_bundles
from shipper.inspection.requeue import requeue
from shipper.service.waking import RETRY_FILE, wake_service
from shipper.spools.sources import Source
from shipper.spools.spool_lock import SpoolLock
from tests.rights import NOBODY
from tests.shipper_support import add_bundle, new_spool, run_shipper

IN_MOVED_TO = 0x80


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def config(tmp_path, spool):
    path = tmp_path / "shipper.yaml"
    path.write_text(
        f"spool: {spool.root}\ndestination:\n  type: directory\n  path: {tmp_path / 'bucket'}\n"
    )
    return path


@pytest.fixture
def quarantined(spool, config):
    """A bundle whose archive was bad when it was read, and is whole again."""
    bundle = add_bundle(spool)
    bundle.archive.write_bytes(b"evidenc3")
    assert run_shipper("once", "--config", config).returncode == 1
    bundle.archive.write_bytes(b"evidence")
    return bundle


def names_that_came(directory, action):
    """Names of files that came to ``directory`` by rename while ``action`` ran."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(directory), IN_MOVED_TO) > 0
        action()
        data, names = os.read(descriptor, 1 << 16), []
    finally:
        os.close(descriptor)
    while data:
        length = struct.unpack_from("iIII", data)[3]
        names.append(data[16 : 16 + length].rstrip(b"\0").decode())
        data = data[16 + length :]
    return names


def test_running_service_hears_of_a_retry_and_nothing_stays(spool, config):
    result = []
    with SpoolLock(spool.batches):
        came = names_that_came(
            spool.batches, lambda: result.append(run_shipper("retry", "--config", config))
        )
    assert came == [RETRY_FILE]
    assert result[0].returncode == 0
    assert f"process {os.getpid()} tries again now" in result[0].stdout
    assert list(spool.batches.iterdir()) == []


def test_central_service_is_woken_where_it_keeps_its_state(spool, config, tmp_path):
    (tmp_path / "inbox").mkdir()
    config.write_text(config.read_text() + f"inbox: {tmp_path / 'inbox'}\n")
    with SpoolLock(spool.batches):
        assert names_that_came(
            tmp_path / "inbox", lambda: wake_service(load_config(config).config)
        ) == [RETRY_FILE]


def test_retry_without_a_service_says_what_to_do(config):
    result = run_shipper("retry", "--config", config)
    assert (result.returncode, result.stdout) == (1, "")
    assert "no shipper runs: systemctl start aod-shipper, or aod-shipper once" in result.stderr
    told = run_shipper("retry", "--json", "--config", config)
    assert (told.returncode, json.loads(told.stdout)) == (1, {"running": None})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_retry_without_the_right_names_the_user_to_be(config, public_directory):
    spool = new_spool(public_directory / "spool")
    loaded = replace(load_config(config).config, spool=spool.root)
    for directory in (spool.root, spool.batches):
        directory.chmod(0o755)
    with SpoolLock(spool.batches):
        os.seteuid(NOBODY)
        try:
            with pytest.raises(HostFault, match="Permission denied") as caught:
                wake_service(loaded)
        finally:
            os.seteuid(0)
    assert "as root or as aod-shipper" in caught.value.remedy


def test_mended_bundle_is_shipped_after_requeue(spool, config, quarantined):
    result = run_shipper("requeue", quarantined.id[:14], "--config", config)
    assert (result.returncode, result.stdout) == (0, f"{quarantined.id} is pending again\n")
    assert "no shipper runs" in result.stderr
    assert spool.counts().pending == 1
    assert run_shipper("once", "--config", config).returncode == 0
    assert spool.counts().delivered == 1


def test_requeue_of_all_wakes_the_service_once(spool, config, quarantined):
    other = add_bundle(spool)
    spool.mark_quarantined(other.id, {})
    results = []
    with SpoolLock(spool.batches):
        came = names_that_came(
            spool.batches,
            lambda: results.append(
                run_shipper("requeue", "--all-quarantined", "--json", "--config", config)
            ),
        )
    assert came == [RETRY_FILE]
    document = json.loads(results[0].stdout)
    assert {one["id"] for one in document["bundles"]} == {quarantined.id, other.id}
    assert document["running"] == {"process": os.getpid()}
    assert spool.quarantined() == set()


def test_delivered_bundle_is_shipped_once_more_only_when_asked(spool, config, tmp_path):
    bundle = add_bundle(spool)
    assert run_shipper("once", "--config", config).returncode == 0
    objects = sorted(path for path in (tmp_path / "bucket").rglob("*") if path.is_file())
    for path in objects:
        path.unlink()
    refused = run_shipper("requeue", bundle.id, "--config", config)
    assert refused.returncode == 1
    assert "it is delivered: to ship it again takes --delivered" in refused.stderr
    assert spool.counts().delivered == 1
    assert run_shipper("requeue", "--delivered", bundle.id, "--config", config).returncode == 0
    assert run_shipper("once", "--config", config).returncode == 0
    assert sorted(p for p in (tmp_path / "bucket").rglob("*") if p.is_file()) == objects
    assert spool.counts().delivered == 1


def test_what_is_gone_cannot_be_requeued(spool, config):
    delivered, evicted = add_bundle(spool), add_bundle(spool)
    spool.write_receipt(delivered.id, {})
    spool.remove(next(b for b in spool.finished() if b.id == delivered.id), None)
    spool.remove(evicted, make_tombstone(evicted, evicted.manifest(), "then"))
    result = run_shipper(
        "requeue", "--delivered", delivered.id, evicted.id, "--json", "--config", config
    )
    assert result.returncode == 1
    first, second = json.loads(result.stdout)["bundles"]
    assert first["refused"] == "its archive is no longer here"
    assert second["refused"] == "it was evicted: there is nothing left to ship"
    counts = spool.counts()
    assert (counts.delivered, counts.evicted) == (1, 1)


def test_pending_bundle_is_left_alone(spool, config):
    bundle = add_bundle(spool)
    result = run_shipper("requeue", bundle.id, "--config", config)
    assert (result.returncode, result.stdout) == (0, f"{bundle.id} was pending already\n")


@pytest.mark.parametrize("arguments", [(), (new_ulid(),), ("hello!",)])
def test_no_such_bundle_is_wrong_usage(config, arguments):
    assert run_shipper("requeue", *arguments, "--config", config).returncode == 2


def test_nothing_in_quarantine_is_fine(config):
    result = run_shipper("requeue", "--all-quarantined", "--config", config)
    assert (result.returncode, result.stdout) == (0, "nothing is in quarantine\n")


def test_agent_that_cleans_up_meanwhile_keeps_what_is_requeued(spool):
    bundle = add_bundle(spool)
    spool.write_receipt(bundle.id, {"id": bundle.id})
    (seen_by_agent,) = spool.finished()
    (found,) = find_bundles([Source(spool)], bundle.id)
    assert requeue(found, delivered=True).refused is None
    with pytest.raises(OSError, match="receipt was taken back"):
        spool.remove(seen_by_agent, None)
    assert spool.counts().pending == 1


def test_receipt_comes_back_when_the_agent_was_faster(spool):
    bundle = add_bundle(spool)
    spool.write_receipt(bundle.id, {"id": bundle.id})
    (found,) = find_bundles([Source(spool)], bundle.id)
    receipt = spool.path(bundle.id, SHIPPED).read_bytes()
    spool.remove(spool.finished()[0], None)
    assert requeue(found, delivered=True).refused == "its archive was cleaned up just now"
    assert spool.path(bundle.id, SHIPPED).read_bytes() == receipt
    assert spool.counts().delivered == 1
