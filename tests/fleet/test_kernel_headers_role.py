"""The headers that a host needs, and what happens when they cannot be had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fleet.conftest import BootHost
from tests.fleet.module_code import module_code
from tests.fleet.playbooks import Ansible

PLAYBOOK = """
- hosts: all
  gather_facts: true
  gather_subset: ["!all", "!min", distribution]
  roles:
    - role: aod.fleet.kernel_headers
  post_tasks:
    - name: Tell
      ansible.builtin.copy:
        content: "{{ _kernel_headers_report | to_json }}"
        dest: /run/report
        mode: "0644"
      changed_when: false
      check_mode: false
"""


@pytest.mark.parametrize(
    ("kernels", "images", "packages"),
    [
        pytest.param(
            ["6.1.0-28-amd64", "6.1.0-30-amd64"],
            {
                "linux-image-6.1.0-28-amd64": "6.1.119-1",
                "linux-image-6.1.0-30-amd64": "6.1.124-1",
                "linux-image-amd64": "6.1.124-1",
                "linux-image-amd64-dbg": "6.1.124-1",
            },
            [
                "linux-headers-6.1.0-28-amd64",
                "linux-headers-6.1.0-30-amd64",
                "linux-headers-amd64=6.1.*",
            ],
            id="Debian with a kernel that is not booted yet",
        ),
        pytest.param(
            ["6.12.9+bpo-cloud-amd64"],
            {"linux-image-cloud-amd64": "6.12.9-1~bpo12+1"},
            ["linux-headers-6.12.9+bpo-cloud-amd64", "linux-headers-cloud-amd64=6.12.*"],
            id="Debian with a cloud kernel of backports",
        ),
        pytest.param(
            ["6.1.0-28-rt-amd64"],
            {"linux-image-6.1.0-28-rt-amd64": "6.1.119-1"},
            ["linux-headers-6.1.0-28-rt-amd64", "linux-headers-rt-amd64"],
            id="Debian without the image's metapackage",
        ),
        pytest.param(
            ["6.8.0-50-generic"],
            {
                "linux-image-unsigned-6.8.0-50-generic": "1",
                "linux-image-generic-hwe-22.04": "6.8.0.50",
            },
            ["linux-headers-6.8.0-50-generic", "linux-headers-generic-hwe-22.04=6.8.*"],
            id="Ubuntu with hardware enablement",
        ),
        pytest.param(
            ["6.8.0-1021-azure"],
            {"linux-image-azure": "6.8.0-1021.25"},
            ["linux-headers-6.8.0-1021-azure", "linux-headers-azure=6.8.*"],
            id="Ubuntu in a cloud",
        ),
        pytest.param(["6.18.44"], {}, [], id="a kernel from elsewhere"),
    ],
)
def test_headers_follow_every_kernel_and_its_flavour(
    kernels: list[str], images: dict[str, str], packages: list[str]
) -> None:
    names = module_code("module_utils.header_packages")
    assert names.debian_packages(kernels, images) == packages


def test_enterprise_linux_has_a_package_that_keeps_step_from_9_on() -> None:
    names, kernel = module_code("module_utils.header_packages"), "5.14.0-503.11.1.el9_5.x86_64"
    nine = names.enterprise_packages([kernel], has_matched=True)
    assert nine == [f"kernel-devel-{kernel}", "kernel-devel-matched"]
    assert names.enterprise_packages([kernel], has_matched=False)[1] == "kernel-devel"


def test_what_cannot_be_had_is_reported_and_fails_nothing(
    boot_host: BootHost, tmp_path: Path
) -> None:
    host = boot_host("client")
    playbook = tmp_path / "headers.yml"
    playbook.write_text(PLAYBOOK)
    ansible = Ansible(tmp_path, {"aod_clients": {host.name: host.variables()}})
    packages = {"kernel_headers_packages": ["linux-headers-of-nobody"]}

    def report(*options: str) -> tuple[int, str, list[str]]:
        run = ansible.run(playbook, *options, variables=packages)
        assert run.exit_code == 0, run.output
        told = json.loads(host.run(["cat", "/run/report"]).stdout)
        return run.recap["client"]["changed"], told["state"], told["missing"]

    kernel = host.run(["uname", "-r"]).stdout.strip()
    assert report("--check") == (0, "none", ["linux-headers-of-nobody"])
    assert report() == (0, "none", ["linux-headers-of-nobody"])
    for place, state in (
        ("/usr/src/linux-headers-6.1.0-1-amd64", "fallback"),
        (f"/lib/modules/{kernel}/build", "exact"),
    ):
        generated = f"{place}/include/generated"
        host.run(f"mkdir -p {generated}; touch {generated}/autoconf.h")
        assert report() == (0, state, ["linux-headers-of-nobody"])
