"""A network that guests of one host share, for what they say to each other.

Frames travel as multicast datagrams of the host's loopback, each with a lifetime of no hop: QEMU
needs no bridge for it, and nothing leaves the host. It is each guest's second device; the first
one stays QEMU's own way to the host (`tests.vm.machine.HOST_ADDRESS`).
"""

from __future__ import annotations

import socket

from tests.vm.machine import VirtualMachine

_GROUP = "230.0.0.1"
_NETWORK_FILE = "/etc/systemd/network/70-segment.network"


class Segment:
    """One network. Its members have numbers from 1 to 254, and an address and a name each."""

    def __init__(self) -> None:
        self._port = _free_udp_port()

    def device(self, number: int) -> list[str]:
        """QEMU's arguments for the member's end."""
        mac = _mac(number)
        return [
            *("-netdev", f"socket,id=segment,mcast={_GROUP}:{self._port},localaddr=127.0.0.1"),
            *("-device", f"virtio-net-pci,netdev=segment,mac={mac}"),
        ]

    @staticmethod
    def address(number: int) -> str:
        return f"10.77.0.{number}"


def join(vm: VirtualMachine, number: int, names: dict[int, str]) -> None:
    """Give a guest that has the member's device its address and its host name, for good.

    ``names`` are those of all members: each finds the others by name.
    """
    address = Segment.address(number)
    vm.write(
        _NETWORK_FILE,
        f"[Match]\nMACAddress={_mac(number)}\n[Network]\nAddress={address}/24\n",
        mode=0o644,
    )
    hosts = "".join(f"{Segment.address(n)} {name}\n" for n, name in sorted(names.items()))
    vm.run(
        f"networkctl reload; hostnamectl hostname {names[number]}; cat >> /etc/hosts",
        input_text=hosts,
    )
    vm.wait_until(["ip", "route", "get", "from", address, Segment.address(254)])


def _mac(number: int) -> str:
    return f"52:54:00:77:00:{number:02x}"


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
