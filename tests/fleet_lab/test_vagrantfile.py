"""The Vagrantfile is one that Vagrant takes; the machines themselves need a hypervisor."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.requirements import skip_or_fail

PROJECT = Path(__file__).parents[2]


def test_vagrant_takes_it(tmp_path: Path) -> None:
    if shutil.which("vagrant") is None:
        skip_or_fail("the Vagrantfile is checked with: apt-get install vagrant")
    store = tmp_path / "minio"
    store.touch()
    settings = {
        "HOME": tmp_path,
        "MINIO": store,
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_DOTFILE_PATH": tmp_path / "machines",
        "VAGRANT_HOME": tmp_path / "home",
    }
    done = subprocess.run(
        ["vagrant", "validate", "--ignore-provider"],
        cwd=PROJECT,
        env={**os.environ, **{name: str(value) for name, value in settings.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Vagrantfile validated successfully" in done.stdout


def test_it_names_what_the_collection_has() -> None:
    text = (PROJECT / "Vagrantfile").read_text()
    (playbook,) = re.findall(r'ansible\.playbook = "(.+)"', text)
    assert (PROJECT / playbook).is_file()
    defaults = yaml.safe_load((PROJECT / "ansible/roles/shipper/defaults/main.yml").read_text())
    assert set(re.findall(r"^ +(shipper_\w+):", text, re.M)) <= defaults.keys()
