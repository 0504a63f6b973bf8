"""``aod-shipper why``: every state that a bundle can be in, told in words and in JSON."""

import json
import re

import pytest

from agent.storage.tombstone import make_tombstone
from agent.storage.ulid import new_ulid
from shipper.spools.spool_lock import SpoolLock
from shipper.status.shipper_state import PAUSED, FaultNote, ShipperState, StateFile
from tests.shipper_support import NOON, add_bundle, new_spool, run_shipper

SINCE = "2026-01-01T14:00:00+00:00"


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def config(tmp_path, spool):
    path = tmp_path / "shipper.yaml"
    path.write_text(
        f"spool: {spool.root}\ninbox: {tmp_path / 'inbox'}\nprefix: fleet\n"
        f"destination:\n  type: directory\n  path: {tmp_path / 'bucket'}\n"
    )
    return path


@pytest.fixture
def why(config):
    """A function that asks, and gives (exit status, state, text)."""

    def ask(reference):
        told = run_shipper("why", reference, "--json", "--config", config)
        text = run_shipper("why", reference, "--config", config)
        assert told.returncode == text.returncode
        assert "Traceback" not in told.stderr + text.stderr
        found = json.loads(told.stdout)["found"] if told.stdout else []
        return text.returncode, [one["state"] for one in found], text.stdout + text.stderr

    return ask


def test_delivered(why, spool, config):
    bundle = add_bundle(spool, time_ms=NOON)
    assert run_shipper("once", "--config", config).returncode == 0
    code, states, text = why(bundle.id)
    assert (code, states) == (0, ["delivered"])
    sha256 = bundle.manifest()["archive"]["sha256"]
    key = f"fleet/filer-1/2026/01/01/{bundle.id}-slow_reads-{sha256[:12]}"
    for words in (
        "its archive is still here",
        f"to        directory {spool.root.parent / 'bucket'}",
        f"key       {key}.tar.zst",
        f"manifest  {key}.json",
        f"size      8 bytes, sha256 {sha256}",
        "attempts  1, by aod-shipper ",
    ):
        assert words in text
    spool.remove(next(one for one in spool.finished() if one.id == bundle.id), None)
    assert "its archive is no longer here" in why(bundle.id)[2]


@pytest.mark.parametrize(
    "name",
    [
        lambda one: one.id[:6],
        lambda one: one.id[:12].lower(),
        lambda one: str(one.done),
        lambda one: one.archive.name,
        lambda one: f"s3://b/fleet/h/2026/01/01/{one.id}-slow-0123456789ab.tar.zst",
    ],
)
def test_bundle_is_found_by_whatever_names_it(why, spool, name):
    bundle = add_bundle(spool)
    code, states, text = why(name(bundle))
    assert (code, states) == (1, ["pending"])
    assert text.startswith(f"{bundle.id} in {spool.root}\n")


@pytest.mark.parametrize("name", ["01ABC", "hello!", "/", "9" * 26, "Z" * 30])
def test_what_names_no_bundle_is_wrong_usage(why, name):
    code, states, text = why(name)
    assert (code, states) == (2, [])
    assert "too short" in text or "neither a bundle's id nor" in text


def test_beginning_of_two_ids_lists_them(why, spool):
    bundles = [add_bundle(spool, time_ms=NOON) for _ in range(2)]
    code, states, text = why(bundles[0].id[:10])
    assert (code, states) == (2, [])
    for bundle in bundles:
        assert bundle.id in text


def test_pending_without_a_shipper(why, spool):
    bundles = [add_bundle(spool, time_ms=NOON + n) for n in range(3)]
    assert "number 3 of 3 in the queue" in why(bundles[0].id)[2]
    text = why(bundles[2].id)[2]
    assert "number 1 of 3 in the queue, the newest goes first" in text
    assert "waits because no shipper runs: systemctl start aod-shipper" in text


def test_pending_while_shipping_is_paused(why, spool, tmp_path):
    bundle, refused = add_bundle(spool), add_bundle(spool)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    StateFile(inbox).write(
        ShipperState(
            PAUSED,
            [
                FaultNote("destination", "AccessDenied", "allow it", SINCE),
                FaultNote("host", "unreadable", "mend it", SINCE, refused.id),
            ],
            next_try="2026-01-01T15:00:00+00:00",
        )
    )
    with SpoolLock(spool.batches):
        _, states, text = why(bundle.id)
        _, _, text_of_refused = why(refused.id)
    assert states == ["pending"]
    assert re.search(
        f"waits since {re.escape(SINCE)} .*, because of a destination fault: AccessDenied", text
    )
    assert "remedy    allow it" in text
    assert "next try  2026-01-01T15:00:00+00:00" in text
    assert "aod-shipper retry" in text
    assert "stays since" in text_of_refused
    assert "unreadable" in text_of_refused
    assert "AccessDenied" not in text_of_refused


def test_pending_with_nothing_in_the_way(why, spool):
    bundle = add_bundle(spool)
    with SpoolLock(spool.batches):
        assert "nothing is in its way" in why(bundle.id)[2]


def test_upload_in_parts(why, spool):
    bundle = add_bundle(spool, b"x" * 100)
    note = spool.path(bundle.id, ".uploading")
    note.write_text(json.dumps({"etags": ["a", "b"], "part_size": 30}))
    code, states, text = why(bundle.id)
    assert (code, states) == (1, ["uploading"])
    assert "being uploaded: 2 of 4 parts are in the store" in text
    note.write_text("{")
    assert "being uploaded: unknown of ? parts" in why(bundle.id)[2]


def test_quarantined(why, spool, config):
    bundle = add_bundle(spool)
    bundle.archive.write_bytes(b"evidenc3")
    assert run_shipper("once", "--config", config).returncode == 1
    code, states, text = why(bundle.id)
    assert (code, states) == (1, ["quarantined"])
    assert re.search(r"in quarantine since 20\S+ \(\d+ s ago\): .* its sha256 is not", text)
    assert f"aod-shipper requeue {bundle.id}" in text


def test_evicted_and_then_known_to_the_store(why, spool, config):
    bundle = add_bundle(spool)
    spool.remove(bundle, make_tombstone(bundle, bundle.manifest(), SINCE))
    code, states, text = why(bundle.id)
    assert (code, states) == (1, ["evicted"])
    assert re.search(
        f"evicted before it was shipped {re.escape(SINCE)} .*: the spool was full", text
    )
    assert "lost      8 bytes (8 B), anomaly slow_reads" in text
    assert "the store does not know of it yet" in text
    assert run_shipper("once", "--config", config).returncode == 0
    assert re.search(r"the store knows of it: fleet/filer-1/.*\.evicted\.json", why(bundle.id)[2])


def test_unfinished(why, spool):
    collecting, cut = new_ulid(), new_ulid()
    (spool.staging / collecting).mkdir()
    spool.path(cut, ".tar.zst").write_bytes(b"x")
    for bundle_id, words in ((collecting, "the agent is collecting it"), (cut, "no marker yet")):
        code, states, text = why(bundle_id)
        assert (code, states) == (1, ["unfinished"])
        assert words in text


def test_bundle_of_another_host_is_found_in_its_inbox(why, tmp_path):
    bundle = add_bundle(new_spool(tmp_path / "inbox" / "web-1"))
    code, states, text = why(bundle.id)
    assert (code, states) == (1, ["pending"])
    assert "number 1 of 1 in the inbox of web-1" in text


def test_unknown_bundle_tells_how_to_search(why, tmp_path):
    bundle_id = new_ulid(NOON)
    code, states, text = why(bundle_id)
    assert (code, states) == (2, [])
    assert "was folded into history.json" in text
    assert f"fleet/<host>/2026/01/01/{bundle_id}" in text
    assert f"search with: find {tmp_path / 'bucket'} -name '{bundle_id}*'" in text


def test_hostile_tombstone_does_not_command_the_terminal(why, spool):
    bundle = add_bundle(spool)
    spool.remove(bundle, {"reason": "\x1b[2J", "anomaly": "a\nb"})
    text = why(bundle.id)[2]
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


def test_id_of_a_year_that_no_calendar_has(why, spool):
    bundle = add_bundle(spool, bundle_id="7ZZZZZZZZZZZZZZZZZZZZZZZZZ")
    code, states, text = why(bundle.id)
    assert (code, states) == (1, ["pending"])
    assert "8 bytes (8 B), made unknown" in text
