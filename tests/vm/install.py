"""Installs the checkout in a guest the way a host gets it: release archive, installer, units.

Nothing is started: a test writes its configuration first.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from release.build import PROJECT, build
from tests.vm.guest import STRICT_BASH
from tests.vm.machine import VirtualMachine

GUEST_PYTHON = "3.11"
#: The unpacked archive, in the guest.
STAGE = "/root/aod-stage"
INSTALL_TIMEOUT_SEC = 1800

_INSTALL = """
mkdir "$1"
tar -C "$1" --strip-components 1 -xf "$1.tar.gz"
rm "$1.tar.gz"
python3 "$1/install.py"
ln -sfn "$(cat "$1/VERSION")" /opt/aod/next
mv -T /opt/aod/next /opt/aod/current

cd /opt/aod/current/share
install -D -m 0644 aod-fleet.sysusers.conf /etc/sysusers.d/aod-fleet.conf
systemd-sysusers
install -d -m 0755 /etc/aod
install -m 0640 -g aod config.yaml shipper.yaml /etc/aod/
install -m 0644 aod-*.service aod-*.socket /etc/systemd/system/
systemctl daemon-reload
systemctl --quiet enable aod-agent.service aod-shipper.service
cat "$1/VERSION"
"""


@dataclass(frozen=True)
class Installation:
    """What the guest has now: `/opt/aod/<version>`, to which `/opt/aod/current` points."""

    version: str


def install(vm: VirtualMachine, project: Path = PROJECT) -> Installation:
    """Build, copy and install; the units are enabled, and not started.

    What was installed before goes first. Raises ReleaseError and GuestCommandError.
    """
    vm.run(["rm", "-rf", STAGE, "/opt/aod"])
    with tempfile.TemporaryDirectory(prefix="aod-install-") as temporary:
        archive = build(project, Path(temporary), [GUEST_PYTHON])
        vm.put(archive, f"{STAGE}.tar.gz")
    done = vm.run([*STRICT_BASH, _INSTALL, "install", STAGE], timeout=INSTALL_TIMEOUT_SEC)
    return Installation(done.stdout.split()[-1])
