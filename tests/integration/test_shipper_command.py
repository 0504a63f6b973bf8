"""The command ``aod-shipper`` as a process: its exit codes, its words, its service."""

import json
import os
import re
import signal
import socket
import subprocess
import threading

import pytest

from agent.storage.tombstone import make_tombstone
from tests.minio_server import free_port
from tests.shipper_support import (
    NOON,
    ScriptedStore,
    add_bundle,
    new_spool,
    run_shipper,
    shipper_command,
    wait_for,
    write_key,
)


@pytest.fixture
def spool(tmp_path):
    return new_spool(tmp_path / "spool")


@pytest.fixture
def config(tmp_path, spool):
    path = tmp_path / "shipper.yaml"
    path.write_text(
        f"spool: {spool.root}\n"
        "scan_interval_sec: 0.1\nstart_jitter_sec: 0\n"
        "destination:\n  type: directory\n"
        f"  path: {tmp_path / 'bucket'}\n"
    )
    return path


@pytest.fixture
def s3_config(tmp_path, spool):
    """A function that writes a configuration for an S3 endpoint."""

    def write(endpoint_url, secret):
        key = write_key(
            tmp_path / "key", "aws_access_key_id = some-key", f"aws_secret_access_key = {secret}"
        )
        path = tmp_path / "s3.yaml"
        path.write_text(
            f"spool: {spool.root}\n"
            "scan_interval_sec: 0.1\nstart_jitter_sec: 0\n"
            "retry: {attempts: 2, initial_wait_sec: 0.01, max_wait_sec: 0.1}\n"
            "destination:\n  type: s3\n  bucket: evidence\n  region: us-east-1\n"
            f"  endpoint_url: {endpoint_url}\n  credentials_file: {key}\n"
        )
        return path

    return write


def delivered(tmp_path):
    return sorted(path.name for path in (tmp_path / "bucket").rglob("*") if path.is_file())


def test_once_ships_and_says_so(config, spool, tmp_path):
    bundle = add_bundle(spool)
    result = run_shipper("once", "--config", config)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"shipped {bundle.id} (8 bytes) filer-1/" in result.stdout
    assert result.stdout.endswith("1 shipped, 0 left\n")
    assert len(delivered(tmp_path)) == 2


def test_once_with_nothing_to_do_is_fine(config):
    result = run_shipper("once", "--config", config)
    assert (result.returncode, result.stdout) == (0, "0 shipped, 0 left\n")


def test_once_names_the_bad_bundle_and_its_remedy(config, spool):
    bad = add_bundle(spool, time_ms=NOON)
    bad.archive.write_bytes(b"evidenc3")
    add_bundle(spool, time_ms=NOON + 1)
    result = run_shipper("once", "--config", config)
    assert result.returncode == 1
    assert "1 shipped, 1 left" in result.stdout
    assert bad.id in result.stderr
    assert "remedy:" in result.stderr


def test_once_in_json(config, spool):
    bundle = add_bundle(spool)
    bad = add_bundle(spool)
    bad.done.write_bytes(b"{")
    result = run_shipper("once", "--json", "--config", config)
    document = json.loads(result.stdout)
    assert [entry["id"] for entry in document["shipped"]] == [bundle.id]
    assert (document["left"], document["faults"][0]["kind"]) == (1, "bundle")


@pytest.mark.parametrize("command", ["once", "run", "status"])
@pytest.mark.parametrize("content", [None, "spool: [", "destination: {type: carrier-pigeon}\n"])
def test_bad_configuration_is_exit_2(tmp_path, command, content):
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_text(content)
    result = run_shipper(command, "--config", path)
    assert result.returncode == 2
    assert "bad.yaml" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_config_asks_for_the_file_alone(config, tmp_path):
    """It is run where the file is to go, before spool and user are there."""
    path = tmp_path / "elsewhere.yaml"
    path.write_text(config.read_text().replace(str(tmp_path), "/nonexistent"))
    assert run_shipper("check-config", "--config", path).stdout == f"{path}: fine\n"
    path.write_text(path.read_text() + "spol: /var/log/aod\n")
    result = run_shipper("check-config", "--config", path)
    assert result.returncode == 2
    assert "spol" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["fly"], ["once", "--speed", "9"]])
def test_wrong_usage_is_exit_2(arguments):
    assert run_shipper(*arguments).returncode == 2


def test_help_teaches_with_examples():
    text = run_shipper("--help").stdout
    assert "`once` outside of it needs credentials_file" in text
    assert "aod-shipper status --json" in text
    assert "exit status" in text


def test_status_follows_the_spool(config, spool, tmp_path):
    add_bundle(spool, time_ms=NOON)
    bad = add_bundle(spool, time_ms=NOON + 1)
    bad.archive.write_bytes(b"evidenc3")
    before = json.loads(run_shipper("status", "--json", "--config", config).stdout)
    assert (before["counts"]["pending"], before["counts"]["pending_bytes"]) == (2, 16)
    assert before["oldest_pending"]["age_sec"] > 0
    assert (before["last_delivery"], before["state"]["faults"]) == (None, [])
    with Service(config, tmp_path) as service:
        service.hear("STATUS=1 bundles stay in the spool")
        assert service.stop() == 0
    result = run_shipper("status", "--json", "--config", config)
    after = json.loads(result.stdout)
    assert result.returncode == 1
    counts = after["counts"]
    assert (counts["delivered"], counts["quarantined"], counts["pending"]) == (1, 1, 0)
    assert after["oldest_pending"] is None
    assert after["last_delivery"]["key"].startswith("filer-1/")
    assert after["state"]["faults"][0]["bundle"] == bad.id
    text = run_shipper("status", "--config", config).stdout
    stays = f"bundle: {bad.id} stays: "
    marked = "quarantined    1 "
    for words in ("pending        0", "delivered      1", marked, "last delivery", stays, "remedy"):
        assert words in text


def test_evicted_bundle_is_told_of_and_shown(config, spool, tmp_path):
    bundle = add_bundle(spool)
    spool.remove(bundle, make_tombstone(bundle, bundle.manifest(), "2026-01-02T03:04:05+00:00"))
    before = run_shipper("status", "--config", config).stdout
    assert "evicted        1 (never shipped: the spool was full), 1 of which" in before
    result = run_shipper("once", "--config", config)
    assert result.returncode == 0
    assert f"shipped the tombstone of {bundle.id}" in result.stdout
    assert "tombstones: 1 shipped, 0 left" in result.stdout
    after = json.loads(run_shipper("status", "--json", "--config", config).stdout)
    assert (after["counts"]["evicted"], after["tombstones"]) == (1, 0)
    assert len(delivered(tmp_path)) == 1


def test_status_waits_for_the_service_and_not_for_the_store(s3_config, tmp_path):
    config = s3_config(f"http://127.0.0.1:{free_port()}", "secret")
    absent = run_shipper("status", "--wait", "0", "--config", config)
    assert absent.returncode == 1
    assert "no service runs" in absent.stderr
    with Service(config, tmp_path):
        present = run_shipper("status", "--wait", "60", "--config", config)
    assert (present.returncode, present.stderr) == (0, "")


@pytest.mark.parametrize("receipt", ["{", "[]", "link"])
def test_status_survives_a_spoiled_receipt(config, spool, receipt):
    path = spool.path(add_bundle(spool).id, ".shipped")
    if receipt == "link":
        path.symlink_to("/etc/passwd")
    else:
        path.write_text(receipt)
    result = run_shipper("status", "--config", config)
    assert (result.returncode, result.stderr) == (int(receipt == "link"), "")
    assert ("pending        1" in result.stdout) == (receipt == "link"), "a link is no receipt"


@pytest.mark.parametrize("command", ["once", "run"])
def test_no_output_holds_a_secret(spool, s3_config, command):
    add_bundle(spool)
    secret = "TOPSECRET-" + os.urandom(8).hex()
    with ScriptedStore(lambda *_: (403, "SignatureDoesNotMatch")) as server:
        path = s3_config(server.endpoint_url, secret)
        environment = {"AWS_SECRET_ACCESS_KEY": secret, "AWS_ACCESS_KEY_ID": "x"}
        if command == "once":
            result = run_shipper("once", "--config", path, env=environment)
            output = result.stdout + result.stderr
        else:
            with subprocess.Popen(
                shipper_command("run", "--config", path),
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                wait_for(lambda: len(server.requests) >= 3, "three rounds")
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=60)
    assert output.count("SignatureDoesNotMatch") == 1, "told once, however many rounds"
    assert "check the credentials file" in output
    files = b"".join(path.read_bytes() for path in spool.batches.iterdir())
    assert secret not in output
    assert secret.encode() not in files


class Service:
    """``aod-shipper run`` as systemd starts it."""

    def __init__(self, config, directory):
        self._manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._manager.bind(str(directory / "notify"))
        self._told = []
        self._heard = 0
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._log = (directory / "service.log").open("w+")
        self.process = subprocess.Popen(
            shipper_command("run", "--config", config),
            env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify")},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self._manager.shutdown(socket.SHUT_RDWR)
        self._listener.join()
        self._manager.close()
        self._log.close()

    def _listen(self):
        """Like systemd, take at once whatever comes: a full queue would hold the service up."""
        while told := self._manager.recv(4096):
            self._told.append(told.decode())

    def hear(self, pattern):
        """Wait until the service tells its manager something new that matches."""
        while True:
            wait_for(lambda: len(self._told) > self._heard, f"the service saying {pattern}")
            self._heard += 1
            if re.search(pattern, self._told[self._heard - 1]):
                return self._told[self._heard - 1]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def log(self):
        self._log.seek(0)
        return self._log.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_service_ships_what_comes_and_stops_when_asked(config, spool, tmp_path, number):
    with Service(config, tmp_path) as service:
        service.hear("READY=1")
        bundles = [add_bundle(spool) for _ in range(3)]
        for bundle in bundles:
            wait_for(spool.path(bundle.id, ".shipped").exists, "a receipt")
        assert service.stop(number) == 0
        service.hear("STOPPING=1")
        assert service.log().count("shipped 0") == 3
    assert len(delivered(tmp_path)) == 7, "with the heartbeat"


def test_service_survives_a_spool_that_vanishes_and_returns(config, spool, tmp_path):
    with Service(config, tmp_path) as service:
        service.hear("everything is shipped")
        spool.root.rename(tmp_path / "moved")
        service.hear("everything is shipped")
        spool.prepare()
        bundle = add_bundle(spool)
        wait_for(spool.path(bundle.id, ".shipped").exists, "a receipt in the new spool")
        assert service.stop() == 0


def test_service_goes_on_when_the_store_comes_back(spool, s3_config, tmp_path):
    bundle = add_bundle(spool)
    healed = []
    with (
        ScriptedStore(lambda *_: (200, "x") if healed else (403, "AccessDenied")) as server,
        Service(s3_config(server.endpoint_url, "x"), tmp_path) as service,
    ):
        assert "s3:PutObject" in service.hear("STATUS=1 pending; .*AccessDenied")
        healed.append(True)
        service.hear("everything is shipped")
        assert spool.path(bundle.id, ".shipped").exists()
        assert service.stop() == 0


def test_service_stops_during_an_outage(spool, s3_config, tmp_path):
    add_bundle(spool)
    with Service(s3_config(f"http://127.0.0.1:{free_port()}", "x"), tmp_path) as service:
        service.hear("STATUS=1 pending")
        assert service.stop() == 0
    assert spool.counts().pending == 1


@pytest.mark.parametrize("command", ["once", "run"])
def test_second_shipper_on_a_spool_is_refused_and_told_whose_it_is(
    config, spool, tmp_path, command
):
    with Service(config, tmp_path) as service:
        service.hear("READY=1")
        result = run_shipper(command, "--config", config)
        assert result.returncode == 1
        told = rf"(process {service.process.pid}|another aod-shipper) ships {spool.root} already"
        assert re.search(told, result.stderr)
        assert "systemctl stop aod-shipper" in result.stderr
        assert "Traceback" not in result.stderr
        assert service.stop() == 0
    assert run_shipper("once", "--config", config).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_once_ends_its_pause_when_it_is_stopped(spool, s3_config, number):
    add_bundle(spool)
    with ScriptedStore(lambda *_: (503, "SlowDown")) as server:
        path = s3_config(server.endpoint_url, "x")
        path.write_text(path.read_text().replace("attempts: 2", "attempts: 100"))
        path.write_text(re.sub("_wait_sec: [0-9.]+", "_wait_sec: 3600", path.read_text()))
        with subprocess.Popen(
            shipper_command("once", "--config", path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_for(lambda: server.requests, "the first attempt")
            process.send_signal(number)
            output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "0 shipped, 1 left\n")
    assert errors.endswith("aod-shipper: stopped\n")
    assert "SlowDown" in errors
    assert "Traceback" not in errors
    assert len(server.requests) == 1


def test_relay_that_is_away_is_gone_around_when_the_configuration_says_so(spool, tmp_path):
    bundle = add_bundle(spool)
    relay = (
        f"destination:\n  type: relay\n  host: 127.0.0.1\n  port: {free_port()}\n"
        f"  identity_file: {tmp_path / 'key'}\n  known_hosts_file: {tmp_path / 'hosts'}\n"
    )
    (tmp_path / "key").write_text("none")
    settings = f"spool: {spool.root}\nretry: {{attempts: 1}}\n"
    waits = tmp_path / "waits.yaml"
    waits.write_text(settings + relay)
    result = run_shipper("once", "--config", waits)
    assert result.returncode == 1
    assert "remedy" in result.stderr
    assert spool.counts().pending == 1

    goes_around = tmp_path / "around.yaml"
    fallback = f"  fallback_after_sec: 0\n  fallback: {{type: directory, path: {tmp_path / 'b'}}}\n"
    goes_around.write_text(settings + relay + fallback)
    result = run_shipper("once", "--config", goes_around)
    assert (result.returncode, result.stderr) == (0, "")
    receipt = json.loads(spool.path(bundle.id, ".shipped").read_bytes())
    assert receipt["destination"] == f"directory {tmp_path / 'b'}"
    assert (tmp_path / "b" / receipt["manifest_key"]).exists()
