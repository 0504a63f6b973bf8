"""`aod-shipper check` for a directory, and for the spool."""

from __future__ import annotations

import os
import subprocess

import pytest

from agent.storage.spool import Spool
from shipper.destinations.directory_destination import DirectoryBucket
from shipper.spools.spool_preflight import check_spool
from tests.shipper_support import add_bundle, new_spool, run_shipper


def found(checks) -> dict:
    return {finding.step: finding for finding in checks}


def test_directory_that_works_is_ready_and_stays_empty(tmp_path):
    root = tmp_path / "new" / "bucket"
    findings = found(DirectoryBucket(root).check())
    assert {finding.state for finding in findings.values()} <= {"ok", "warning"}
    assert findings["directory"].state == "ok"
    assert "GB are free" in findings["room"].detail
    assert list(root.iterdir()) == []


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (finding,) = DirectoryBucket(tmp_path / "file" / "bucket").check()
    assert finding.state == "failed"
    assert "Not a directory" in finding.detail
    assert finding.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
def test_directory_without_any_room(tmp_path):
    root = tmp_path / "disk"
    root.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", root], check=False
    ).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        (finding,) = (one for one in DirectoryBucket(root).check() if one.step == "room")
        assert finding.state == "warning"
        with (root / "filler").open("wb") as filler:
            filler.write(b"x" * os.statvfs(root).f_bavail * os.statvfs(root).f_frsize)
        (finding,) = DirectoryBucket(root).check()
        assert finding.state == "failed"
        assert "No space left" in finding.detail
    finally:
        subprocess.run(["umount", root], check=True)


def test_spool_that_can_be_used(tmp_path):
    spool = new_spool(tmp_path / "spool")
    add_bundle(spool)
    before = sorted(spool.batches.iterdir())
    findings = found(check_spool(spool))
    assert [finding.state for finding in findings.values()] == ["ok", "ok"]
    assert "1 bundles wait" in findings["spool"].detail
    assert sorted(spool.batches.iterdir()) == before


def test_spool_that_is_not_there(tmp_path):
    (finding,) = check_spool(Spool(tmp_path / "none"))
    assert (finding.state, "is not there" in finding.detail) == ("failed", True)


def test_command_for_a_directory(tmp_path):
    new_spool(tmp_path / "spool")
    config = tmp_path / "shipper.yaml"
    config.write_text(
        f"spool: {tmp_path / 'spool'}\ndestination:\n  type: directory\n"
        f"  path: {tmp_path / 'bucket'}\n"
    )
    result = run_shipper("check", "--config", config)
    assert result.returncode == 0, result.stderr
    assert "ok       directory" in result.stdout
    (tmp_path / "bucket").rmdir()
    (tmp_path / "bucket").write_text("in the way")
    result = run_shipper("check", "--config", config)
    assert (result.returncode, "FAILED   directory" in result.stdout) == (1, True)
