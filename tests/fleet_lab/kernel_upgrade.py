"""A client gets another kernel, as its administrator installs one, and reboots into it."""

from __future__ import annotations

from tests.fleet_lab.record import Step
from tests.fleet_lab.steps import Fleet, StepFunction, wait_until_watching
from tests.vm.machine import VirtualMachine

NEW_KERNEL_PACKAGE, NEW_SERIES = "linux-image-6.12-amd64", "6.12."

_INSTALL = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends {NEW_KERNEL_PACKAGE}
"""


def new_kernel(fleet: Fleet, step: Step) -> None:
    """The administrator installs the image alone, and site.yml its headers beside it."""
    fleet.lab.on_each_client(lambda name, vm: vm.run(_INSTALL, timeout=1800))
    fleet.installed(fleet.version)
    headers = "ls /usr/src | grep -x 'linux-headers-6.12.*-amd64'"
    found = fleet.lab.on_each_client(lambda name, vm: vm.run(headers).stdout.strip())
    step.found(headers=found)


def reboot(fleet: Fleet, step: Step) -> None:
    """Each boots the new kernel; its agent comes back by itself, with exactly its headers."""
    before = fleet.lab.on_each_client(lambda name, vm: kernel_of(vm))
    fleet.lab.on_each_client(lambda name, vm: vm.reboot())
    fleet.lab.on_each_client(lambda name, vm: fleet.lab.mount(vm))
    wait_until_watching(fleet, fleet.version)
    now = fleet.lab.on_each_client(lambda name, vm: kernel_of(vm))
    assert all(release.startswith(NEW_SERIES) for release in now.values()), now
    step.found(before=before, now=now)


STEPS: dict[str, StepFunction] = {"new_kernel": new_kernel, "reboot": reboot}


def kernel_of(vm: VirtualMachine) -> str:
    return vm.run(["uname", "-r"]).stdout.strip()
