"""Whose turn it is."""

from dataclasses import dataclass, field

import pytest

from shipper.shipping.fair_queue import Cargo, FairQueue
from shipper.shipping.outcome import Outcome


@dataclass(eq=False)
class Host:
    """An outlet whose cargos cost ``cost`` each."""

    name: str
    cost: int = 1
    sent_bytes: int = 0
    failures: dict[str, float] = field(default_factory=dict)

    def charge(self, cargo):
        self.sent_bytes += self.cost

    def ship(self, cargo, once):
        return Outcome(cargo.id, self.cost)

    def last_failure(self, cargo_id):
        return self.failures.get(cargo_id, 0.0)


def take_all(queue):
    taken = []
    while queue:
        taken.append(queue.take())
    return taken


def test_newest_bundle_first_and_tombstones_last():
    host = Host("a")
    cargos = [Cargo(one, host) for one in "2314"] + [Cargo("9", host, tombstone=True)]
    assert [cargo.id for cargo in take_all(FairQueue(cargos))] == ["4", "3", "2", "1", "9"]


def test_host_that_floods_waits_for_itself_alone():
    flood, calm = Host("flood"), Host("calm")
    cargos = [Cargo(f"{number:04}", flood) for number in range(1000)]
    cargos += [Cargo(f"x{number}", calm) for number in range(3)]
    taken = [cargo.outlet.name for cargo in take_all(FairQueue(cargos))]
    assert taken[:6].count("calm") == 3
    assert len(taken) == 1003


def test_turns_go_by_bytes():
    large, small = Host("large", cost=100), Host("small", cost=10)
    cargos = [Cargo(str(number), host) for host in (large, small) for number in range(100)]
    taken = [cargo.outlet.name for cargo in take_all(FairQueue(cargos))]
    assert taken[:22].count("large") == 2


@pytest.mark.parametrize("cost", [1, 7])
def test_latecomer_catches_nothing_up(cost):
    old, new = Host("old"), Host("new", cost)
    first = FairQueue([Cargo(f"{number:04}", old) for number in range(1000)])
    for _ in range(500):
        first.take()
    rest = [Cargo(f"{number:04}", old) for number in range(500)]
    again = FairQueue([*rest, *(Cargo(f"{number:04}", new) for number in range(500))], first.floor)
    taken = [again.take().outlet.name for _ in range(80)]
    assert taken.count("new") == pytest.approx(80 / (1 + cost), abs=1)


def test_longest_unfailed_goes_before_the_newest():
    host = Host("a", failures={"3": 20.0, "2": 10.0, "1": 30.0})
    queue = FairQueue([Cargo(one, host) for one in "123"])
    order = [
        queue.take_longest_unfailed(lambda cargo: cargo.outlet.last_failure(cargo.id)).id
        for _ in range(3)
    ]
    assert order == ["2", "3", "1"]
    assert not queue
