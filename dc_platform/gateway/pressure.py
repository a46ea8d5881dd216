"""What stands between requests and Kafka: a bounded queue and a circuit breaker (design 6.8, 6.9)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pybreaker

from dc_platform.errors import BrokerUnavailableError

log = logging.getLogger(__name__)

_PROBE_SECONDS = 1.0


class OverloadedError(BrokerUnavailableError):
    """The gateway has as many events waiting for Kafka as it may."""


class EventQueue:
    """Counts the events that wait for Kafka.

    Above `slowdown` of the limit requests are let in at `slow_rate` per second; at the limit they
    wait, and give up after `patience` seconds. One request may be larger than the whole queue: it is
    let in when the queue is empty.
    """

    def __init__(self, *, limit: int, slowdown: float, slow_rate: int, patience: float) -> None:
        self._limit = limit
        self._slow_from = slowdown * limit
        self._pause = 1.0 / slow_rate
        self._patience = patience
        self._waiting = 0
        self._room = asyncio.Condition()
        self._next_slot = 0.0

    @property
    def waiting(self) -> int:
        """Events that wait for Kafka now."""
        return self._waiting

    @asynccontextmanager
    async def admit(self, events: int) -> AsyncIterator[None]:
        """Hold a place for so many events; raises OverloadedError."""
        if self._waiting > self._slow_from:
            await self._slow_down()
        if self._waiting and self._waiting + events > self._limit:
            await self._wait_for_room(events)
        self._waiting += events
        try:
            yield
        finally:
            self._waiting -= events
            async with self._room:
                self._room.notify_all()

    async def _slow_down(self) -> None:
        now = asyncio.get_running_loop().time()
        self._next_slot = max(now, self._next_slot) + self._pause
        await asyncio.sleep(min(self._next_slot - now, self._patience))

    async def _wait_for_room(self, events: int) -> None:
        try:
            async with asyncio.timeout(self._patience), self._room:
                await self._room.wait_for(
                    lambda: not self._waiting or self._waiting + events <= self._limit
                )
        except TimeoutError:
            raise OverloadedError(
                f"{self._waiting} events wait for Kafka, the limit is {self._limit}"
            ) from None


class Circuit:
    """Opens after so many failures in a row, and fails fast then.

    It closes after `seconds` with the next success, or earlier: while it is open the broker is
    probed each second.
    """

    def __init__(
        self, *, failures: int, seconds: float, probe: Callable[[], Awaitable[bool]]
    ) -> None:
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failures,
            reset_timeout=seconds,
            exclude=[asyncio.CancelledError, OverloadedError],
            name="kafka",
        )
        self._probe = probe

    @property
    def state(self) -> str:
        """closed, open or half-open."""
        return str(self._breaker.current_state)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Runs a call to Kafka; raises BrokerUnavailableError at once while open."""
        try:
            with self._breaker.calling():
                yield
        except pybreaker.CircuitBreakerError as error:
            raise BrokerUnavailableError(f"Kafka is away: {error}") from error

    async def watch(self) -> None:
        """Probe the broker for ever, while the circuit is open."""
        while True:
            await asyncio.sleep(_PROBE_SECONDS)
            if self.state == pybreaker.STATE_OPEN and await self._probe():
                log.info("Kafka answers again: the circuit closes")
                self._breaker.close()
