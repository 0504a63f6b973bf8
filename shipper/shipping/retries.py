"""Several attempts at one delivery, while the network is what is in the way."""

from __future__ import annotations

from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from agent.service.stop_signal import StopSignal
from shipper.configuration.schema import RetryConfig
from shipper.destinations.delivery import Delivery
from shipper.destinations.destination import Destination
from shipper.destinations.document import Document
from shipper.faults import NetworkFault


class PatientDelivery:
    """Delivers to ``destination``, with growing random pauses between attempts; ``stop`` ends them.

    Raises what the last attempt raised. Many threads at once.
    """

    def __init__(self, destination: Destination, config: RetryConfig, stop: StopSignal) -> None:
        self._destination = destination
        self._attempts = config.attempts
        self._stop = stop
        self._retrying = Retrying(
            retry=retry_if_exception_type(NetworkFault),
            stop=self._gives_up,
            wait=wait_random_exponential(config.initial_wait_sec, config.max_wait_sec),
            before_sleep=self._pause,
            sleep=lambda _: None,
            reraise=True,
        )

    def deliver(self, delivery: Delivery) -> tuple[str, int]:
        """Deliver in as many attempts as configured: where it lies, and how many it took."""
        where = self._retrying(self._destination.deliver, delivery)
        return where, int(self._retrying.statistics["attempt_number"])

    def put_document(self, document: Document) -> None:
        """The same for a small JSON document."""
        self._retrying(self._destination.put_document, document)

    def _gives_up(self, state: RetryCallState) -> bool:
        return self._stop.is_set() or state.attempt_number >= self._attempts

    def _pause(self, state: RetryCallState) -> None:
        """Not as ``sleep``: here the fault is still known, and raised when stop ends the pause."""
        if state.next_action and self._stop.wait(state.next_action.sleep) and state.outcome:
            state.outcome.result()
