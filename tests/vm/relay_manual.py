"""The set-up that docs/relay.md tells to do, done as it is written there."""

from __future__ import annotations

import re

from tests.vm.install import PROJECT, STAGE
from tests.vm.machine import VirtualMachine

_BLOCKS = re.findall(
    r"^```bash\n(.*?)^```$", (PROJECT / "docs/relay.md").read_text(), re.DOTALL | re.MULTILINE
)
_ON_CENTRAL_HOST, _ON_HOST, _AUTHORIZE = _BLOCKS
_EXAMPLE_RELAY, _EXAMPLE_HOST = "relay.example.com", "web-17"

_PREPARED = "export PATH=/opt/aod/current/bin:$PATH\n"
_REMOVE = """
rm -rf /etc/aod/relay /etc/aod/relay_authorized_keys /var/lib/aod/inbox
rm -f /etc/sysusers.d/aod-relay.conf /etc/tmpfiles.d/aod-relay.conf
rm -f /etc/ssh/sshd_config.d/aod-relay.conf
systemctl reload ssh
"""


def set_up_central_host(vm: VirtualMachine) -> str:
    """In the guest, the users aside nothing of it is there before; what the tools complained of."""
    vm.run(_REMOVE)
    return vm.run(f"cd {STAGE}\n{_PREPARED}{_ON_CENTRAL_HOST}").stderr


def authorize(vm: VirtualMachine, host: str, public_key: str) -> None:
    """Let ``host`` into the guest's relay with its key."""
    assert _EXAMPLE_HOST in _AUTHORIZE
    vm.write(f"{STAGE}/{host}.pub", public_key)
    vm.run(f"cd {STAGE}\n{_PREPARED}{_AUTHORIZE.replace(_EXAMPLE_HOST, host)}")


def set_up_host(vm: VirtualMachine, relay: str, host_key: str) -> str:
    """In the guest; ``relay`` is as in known_hosts. The public key to let in there."""
    assert _EXAMPLE_RELAY in _ON_HOST
    vm.run(["rm", "-rf", "/etc/aod/relay"])
    vm.write(f"{STAGE}/host_key.pub", host_key)
    vm.run(f"cd {STAGE}\n{_PREPARED}{_ON_HOST.replace(_EXAMPLE_RELAY, relay)}")
    return vm.run(["cat", "/etc/aod/relay/key.pub"]).stdout


def remove(vm: VirtualMachine) -> None:
    """Leave the guest without a relay and without a way to one."""
    vm.run(_REMOVE)
