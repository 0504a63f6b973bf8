"""The machines of a fleet: clients with a mount each, their SMB server, a relay, a store.

client-1, client-2, … ──── 10.77.0.0/24 ──── server (smbd), relay
      └── this host's loopback: MinIO, and a port for each machine's sshd
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from tests.fleet.playbooks import Ansible
from tests.fleet_lab.topology import PREFIX, Topology, group_variables
from tests.minio_server import MinioServer
from tests.vm import faults, smb_server
from tests.vm.image import Image
from tests.vm.machine import VirtualMachine
from tests.vm.segment import Segment, join

Answer = TypeVar("Answer")
Action = Callable[[str, VirtualMachine], Answer]

SERVER, RELAY, FIRST_CLIENT = 1, 2, 11
MOUNT_POINT = "/mnt/share"
MEMORY_MB = 1024


class FleetLaboratory:
    """A context manager: entering returns with all machines booted, joined and mounted.

    `clients` and `relays` are by host name, which is also the name in the inventory.
    """

    def __init__(
        self, image: Image, minio: MinioServer, directory: Path, topology: Topology, clients: int
    ) -> None:
        self.topology = topology
        self.bucket = minio.create_bucket()
        self._minio = minio
        self._directory = directory
        self._names = {FIRST_CLIENT + number: f"client-{number + 1}" for number in range(clients)}
        self._names[SERVER] = "server"
        if topology == "central":
            self._names[RELAY] = "relay"
        segment = Segment()
        self._machines = {
            name: VirtualMachine(image, MEMORY_MB, cpus=1, devices=segment.device(number))
            for number, name in self._names.items()
        }
        self.server = self._machines["server"]
        self.relays = {name: vm for name, vm in self._machines.items() if name == "relay"}
        self.clients = {
            name: vm for name, vm in self._machines.items() if name.startswith("client-")
        }
        self._stack = ExitStack()
        # A guest dies with the thread that booted it: the threads stay as long as the guests.
        self._threads = ThreadPoolExecutor(len(self._machines))

    def __enter__(self) -> FleetLaboratory:
        with ExitStack() as stack:
            stack.callback(self._threads.shutdown)
            for vm in self._machines.values():
                stack.callback(vm.stop)
            list(self._threads.map(self._boot, self._names))
            smb_server.serve(self.server)
            self.on_each_client(lambda name, vm: self.mount(vm))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def ansible(self) -> Ansible:
        """With an inventory of this fleet."""
        groups = {"aod_clients": self.clients, "aod_relays": self.relays}
        variables = group_variables(self.topology, self._minio, self.bucket, "relay")
        return Ansible(
            self._directory,
            {
                group: {name: {**_connection(vm), **variables[group]} for name, vm in hosts.items()}
                for group, hosts in groups.items()
                if hosts
            },
        )

    def on_each_client(self, action: Action[Answer]) -> dict[str, Answer]:
        """At once on all; what it returned, by name."""
        return self._on_each(self.clients, action)

    def on_each_host(self, action: Action[Answer]) -> dict[str, Answer]:
        """The same on clients and relays: all that is in the inventory."""
        return self._on_each({**self.clients, **self.relays}, action)

    def mount(self, vm: VirtualMachine) -> None:
        smb_server.mount(vm, Segment.address(SERVER), MOUNT_POINT)

    @contextmanager
    def slow_server(self, milliseconds: int) -> Iterator[None]:
        """Every packet that the SMB server sends to the fleet leaves that much later."""
        find = f"ip -o -4 address | awk '/ {Segment.address(SERVER)}\\// {{print $2}}'"
        fault = faults.device(self.server.run(find).stdout.strip(), "delay", f"{milliseconds}ms")
        self.server.run(fault.begin)
        try:
            yield
        finally:
            self.server.run(fault.end)

    def bundles(self) -> dict[str, set[str]]:
        """Keys of the archives in the bucket whose manifest is there too, by client."""
        keys = set(self._minio.keys(self.bucket))
        whole = {key for key in keys if key.replace(".tar.zst", ".json") in keys - {key}}
        return {
            name: {key for key in whole if key.startswith(f"{PREFIX}/{name}/")}
            for name in self.clients
        }

    def wait_for_bundles(self, anomaly: str, known: dict[str, set[str]], timeout: float) -> None:
        """Until each client has brought one of ``anomaly`` that is not in ``known``."""
        deadline = time.monotonic() + timeout
        while missing := [
            name
            for name, keys in self.bundles().items()
            if not any(f"-{anomaly}-" in key for key in keys - known[name])
        ]:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {anomaly} bundle of {missing} within {timeout} s")
            time.sleep(0.5)

    @property
    def names(self) -> list[str]:
        """Of all machines."""
        return list(self._machines)

    def consoles(self) -> str:
        """The last that each machine said."""
        return "\n".join(
            f"--- {name}'s console\n{vm.console_tail()}" for name, vm in self._machines.items()
        )

    def _on_each(
        self, machines: dict[str, VirtualMachine], action: Action[Answer]
    ) -> dict[str, Answer]:
        answers = self._threads.map(action, machines, machines.values())
        return dict(zip(machines, answers, strict=True))

    def _boot(self, number: int) -> None:
        vm = self._machines[self._names[number]]
        vm.__enter__()
        join(vm, number, self._names)


def _connection(vm: VirtualMachine) -> dict[str, Any]:
    """What an inventory says of a machine."""
    options = "-oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oLogLevel=ERROR"
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": vm.ssh_port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(vm.ssh_key),
        "ansible_ssh_common_args": options,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
