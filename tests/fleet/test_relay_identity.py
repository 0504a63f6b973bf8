"""Where the relay's key is made: in a directory that its owner may have had to itself until now."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.fleet.playbooks import Ansible, PlaybookRun

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")

OWNER, GROUP = "nobody", "nogroup"
PLAYBOOK = f"""
- hosts: all
  gather_facts: false
  tasks:
    - aod.fleet.relay_identity:
        path: "{{{{ playbook_dir }}}}/relay/key"
        owner: {OWNER}
        group: {GROUP}
        sysusers: /nonexistent
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Made by hand, and its owner's."""
    path = tmp_path / "relay"
    path.mkdir(mode=0o700)
    shutil.chown(path, OWNER)
    return path


def make(directory: Path) -> PlaybookRun:
    playbook = directory.with_name("identity.yml")
    playbook.write_text(PLAYBOOK)
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    return Ansible(directory.parent, {"all": {"here": here}}).run(playbook)


def test_a_key_is_made_once_in_a_directory_of_root_s(directory: Path) -> None:
    assert make(directory).changed() == {"here": 1}
    key = (directory / "key").read_text()
    assert (directory.owner(), (directory / "key").owner()) == ("root", OWNER)
    assert make(directory).changed() == {"here": 0}
    assert (directory / "key").read_text() == key


@pytest.mark.parametrize("name", ["key", "key.pub"])
def test_no_file_is_given_away_or_written_through_a_link(directory: Path, name: str) -> None:
    secret = directory.with_name("secret")
    secret.write_text("of root\n")
    secret.chmod(0o600)
    (directory / name).symlink_to(secret)
    done = make(directory)
    assert done.exit_code != 0
    assert f"{directory / name} is a link" in done.output
    assert (secret.owner(), secret.stat().st_mode & 0o777, secret.read_text()) == (
        "root",
        0o600,
        "of root\n",
    )
