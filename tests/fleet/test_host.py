"""The hosts themselves: what the tests of the roles stand on."""

from __future__ import annotations

from pathlib import Path

from tests.fleet.conftest import BootHost
from tests.fleet.playbooks import Ansible

PING = """
- hosts: all
  gather_facts: false
  tasks:
    - name: Change something
      ansible.builtin.copy: {content: "{{ inventory_hostname }}", dest: /etc/here, mode: "0644"}
"""


def test_hosts_are_booted_clean_and_apart(boot_host: BootHost, tmp_path: Path) -> None:
    hosts = [boot_host(name) for name in ("web-1", "web-2")]
    playbook = tmp_path / "ping.yml"
    playbook.write_text(PING)
    ansible = Ansible(tmp_path, {"aod_clients": {host.name: host.variables() for host in hosts}})
    first, second = ansible.run(playbook), ansible.run(playbook)
    assert first.exit_code == 0, first.output
    assert (first.changed(), second.changed()) == (
        {"web-1": 1, "web-2": 1},
        {"web-1": 0, "web-2": 0},
    )
    for host in hosts:
        assert host.run(["cat", "/etc/here"]).stdout == host.name
        assert host.run(["systemctl", "is-system-running"]).stdout == "running\n"
