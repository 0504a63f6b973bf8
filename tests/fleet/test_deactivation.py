"""What a removal does with trees that are more than plain directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fleet.module_code import module_code
from tests.requirements import skip_or_fail

# In a mount namespace of its own.
IN_NAMESPACE = """
import json, subprocess, sys
from pathlib import Path
from tests.fleet.module_code import module_code

spool = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "none", spool], check=True)
Path(spool, "bundle").touch()
parameters = {"files": [], "units": [], "trees": [spool], "directories": [spool], "prefix": "/none"}
deactivate = module_code("module_utils.deactivation").deactivate
answers = [deactivate(parameters, False)["removed"] for _ in range(2)]
print(json.dumps([answers, [path.name for path in Path(spool).iterdir()]]))
"""


def test_a_mounted_spool_is_emptied_and_the_mount_stays(tmp_path: Path) -> None:
    if os.geteuid():
        skip_or_fail("a mount of its own needs root")
    spool = tmp_path / "spool"
    spool.mkdir()
    within = ["unshare", "--mount", sys.executable, "-c", IN_NAMESPACE, str(spool)]
    done = subprocess.run(within, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[[str(spool)], []], []]


def test_a_spool_behind_a_link_goes_with_its_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "batches").mkdir(parents=True)
    (data / "batches/bundle").touch()
    (tmp_path / "spool").symlink_to(data)
    trees = [str(tmp_path / "spool")]
    parameters = {"files": [], "units": [], "trees": trees, "directories": [], "prefix": "/none"}
    deactivate = module_code("module_utils.deactivation").deactivate
    assert deactivate(parameters, check_mode=False)["removed"] == trees
    assert list(tmp_path.iterdir()) == []
