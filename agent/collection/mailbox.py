"""Hands orders from any thread to one consumer, which sleeps without a wake-up until one comes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.detection.anomaly import AnomalyAction


@dataclass(frozen=True)
class Delivery:
    """What came for the consumer; ``ended``: no order comes after these; ``hurry``: see `close`."""

    orders: list[AnomalyAction]
    pings: list[Callable[[], None]]
    ended: bool
    hurry: bool


class Mailbox:
    """Bounded: an order holds megabytes of evidence. Every method may be called by any thread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._orders: deque[AnomalyAction] = deque()
        self._pings: list[Callable[[], None]] = []
        self._closed = False
        self._hurry = False
        self._arrival = threading.Event()
        self._wake: Callable[[], object] = self._arrival.set

    def put(self, order: AnomalyAction) -> bool:
        """Add an order; False, and nothing added, when the box is full or closed."""
        with self._lock:
            return self._add(order)

    def put_waiting(self, order: AnomalyAction) -> bool:
        """Add an order, if need be after a wait for room; False when the box is closed."""
        with self._lock:
            self._room.wait_for(lambda: self._closed or len(self._orders) < self._capacity)
            return self._add(order)

    def ping(self, answer: Callable[[], None]) -> None:
        """Have the consumer call ``answer``."""
        with self._lock:
            self._pings.append(answer)
            self._wake()

    def close(self, hurry: bool) -> None:
        """Accept no more orders; ``hurry`` tells the consumer to be quick with those it has."""
        with self._lock:
            self._closed = True
            self._hurry = self._hurry or hurry
            self._room.notify_all()
            self._wake()

    def wake_by(self, wake: Callable[[], object] | None) -> None:
        """Call ``wake`` at every arrival; None: `wait` serves again. Calls it once at the start,
        for what came before."""
        with self._lock:
            self._wake = wake or self._arrival.set
            self._wake()

    def wait(self) -> None:
        """Block until something has arrived since the last wait."""
        self._arrival.wait()
        self._arrival.clear()

    def take(self, most: int) -> Delivery:
        """The oldest orders, at most ``most``, and all pings."""
        with self._lock:
            orders = [self._orders.popleft() for _ in range(min(most, len(self._orders)))]
            pings, self._pings = self._pings, []
            self._room.notify_all()
            ended = self._closed and not self._orders
            return Delivery(orders, pings, ended, self._hurry)

    def _add(self, order: AnomalyAction) -> bool:
        if self._closed or len(self._orders) >= self._capacity:
            return False
        self._orders.append(order)
        self._wake()
        return True

    def __len__(self) -> int:
        """Orders that wait."""
        return len(self._orders)
