#!/usr/bin/python
# Copyright: AOD Fleet
# Apache-2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Words for the action of the same name, which does it all on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Show how the hosts of a fleet are, as a table and as JSON
version_added: 0.1.0
description:
  - Prints a line for each host, trouble first, each fault with its remedy, and a summary.
  - Takes what M(aod.fleet.status) was registered as, C(aod_answer), and what the playbooks leave
    in C(aod_reached) and C(aod_outcome).
options:
  hosts:
    description: The hosts to tell of.
    type: list
    elements: str
    required: true
  path:
    description: File on the controller that is replaced by the report as JSON; empty for none.
    type: str
    default: ""
  unsaid:
    description: What became of a host whose turn in the roll-out never came.
    type: str
    choices: [done, not begun]
    default: done
attributes:
  check_mode:
    description: Does the same in check mode, because it changes no host.
    support: full
author:
  - AOD Fleet
"""

EXAMPLES = r"""
- name: Ask agent and shipper
  aod.fleet.status:
  register: aod_answer

- name: Show the report
  aod.fleet.report:
    hosts: "{{ ansible_play_hosts_all }}"
    path: /var/tmp/fleet.json
  run_once: true
"""

RETURN = r"""
summary:
  description:
    - How many hosts are healthy, absent, not begun, degraded, unreachable or failed.
    - States without a host are left out.
  returned: always
  type: dict
"""
