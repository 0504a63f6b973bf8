"""What a roll-out costs the controller: CPU time of ansible-playbook by the number of hosts."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figure import Figure
from tests.fleet.host import FleetHost
from tests.fleet.host_image import host_image
from tests.fleet.playbooks import Ansible, PlaybookRun
from tests.fleet.releases import build_release

VERSION = "0.1.0"
SIZES = (1, 3, 6)
FLEET = 1000


@dataclass(frozen=True)
class Line:
    """CPU seconds as ``fixed`` and so much ``per_host``, by least squares."""

    fixed: float
    per_host: float

    @classmethod
    def through(cls, points: Sequence[tuple[int, float]]) -> Line:
        hosts = sum(x for x, _ in points) / len(points)
        seconds = sum(y for _, y in points) / len(points)
        slope = sum((x - hosts) * (y - seconds) for x, y in points) / sum(
            (x - hosts) ** 2 for x, _ in points
        )
        return cls(seconds - slope * hosts, slope)

    def minutes(self, hosts: int) -> float:
        return (self.fixed + self.per_host * hosts) / 60


def measure() -> list[Figure]:
    """Fresh hosts in containers, all at once, and the same playbook again."""
    fresh, converged, tasks = [], [], 0
    with tempfile.TemporaryDirectory() as temporary:
        releases = Path(temporary) / "dist"
        releases.mkdir()
        build_release(releases, VERSION)
        for size in SIZES:
            with ExitStack() as stack:
                names = [f"bench-{number}" for number in range(size)]
                hosts = [stack.enter_context(FleetHost(host_image(), name)) for name in names]
                clients = {host.name: host.variables() for host in hosts}
                place = Path(temporary) / str(size)
                place.mkdir()
                ansible = Ansible(place, {"aod_clients": clients, "aod_relays": {}})
                _, seconds = _run(ansible, releases)
                fresh.append((size, seconds))
                run, seconds = _run(ansible, releases)
                converged.append((size, seconds))
                assert not any(run.changed().values()), run.output
                tasks = max(run.recap[host.name]["ok"] for host in hosts)
    return [Figure("tasks of a converged host", tasks, "", "30 or less"), *_of(fresh, converged)]


def _of(fresh: list[tuple[int, float]], converged: list[tuple[int, float]]) -> list[Figure]:
    figures = []
    for name, points in (("fresh", fresh), ("converged", converged)):
        line = Line.through(points)
        figures += [
            Figure(f"controller CPU time per host, {name}", line.per_host, "s"),
            Figure(f"controller CPU time whatever the hosts, {name}", line.fixed, "s"),
            Figure(
                f"the same for {FLEET:,} hosts, extrapolated, {name}", line.minutes(FLEET), "min"
            ),
        ]
    return figures


def _run(ansible: Ansible, releases: Path) -> tuple[PlaybookRun, float]:
    """CPU seconds of ansible-playbook, its workers and ssh clients; not of the hosts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = ansible.run(
        "site.yml",
        variables={
            "aod_serial": ["100%"],
            "release_version": VERSION,
            "release_directory": str(releases),
        },
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run.exit_code == 0, run.output
    return run, (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
