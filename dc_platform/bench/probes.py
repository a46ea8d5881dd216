"""Single events sent through the gateway, and the time until POST /api/v1/query has them.

They start on a schedule that does not wait for answers, and are timed from when they were due: a
stall of 20 s is met by each probe that was due in it. Were each to wait for the one before, the stall
would be a single sample.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import httpx

from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.stack import Stack

T = TypeVar("T")

_POLL_SECONDS = 0.005
_PATIENCE_SECONDS = 30.0
_LATE_SECONDS = 0.05
# So many are sent at once, and so many ask, 200 times a second each at most: what is due beyond
# them waits, and is timed all the same. More would be a load of their own on two cores. Who sends
# never waits for one that asks: when answers take 10 s, acknowledgements need not.
_AT_ONCE = 8


@dataclass(frozen=True)
class Probe:
    """An acknowledged event. `acknowledged_at` in epoch seconds; `ack_ms` until the gateway's `200`,
    `delay_ms` until the first answer that has it, both from the moment at which it was due.
    `asked_late`: whether all that ask were busy with others at first, so that it may have been there.
    """

    event_id: str
    acknowledged_at: float
    ack_ms: float
    delay_ms: float
    asked_late: bool


class Sent(NamedTuple):
    """An acknowledged event: its id and timestamp, and when it was due and acknowledged, both of the
    monotonic clock; `acknowledged_at` in epoch seconds.
    """

    event_id: str
    at_ms: int
    due: float
    acknowledged: float
    acknowledged_at: float


class Prober:
    """Sends events and waits for each, `patience` seconds from when it is first asked for.

    Thread-safe.
    """

    def __init__(
        self,
        stack: Stack,
        patience: float = _PATIENCE_SECONDS,
        *,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._patience = patience
        self._events = f"{stack.info['gateway']}/api/v1/events"
        self._query = f"{stack.info['query']}/api/v1/query"
        self._writer = httpx.Client(
            headers={"X-API-Key": stack.key}, timeout=30, transport=transport
        )
        self._reader = httpx.Client(
            headers={"Authorization": f"Bearer {stack.token}"}, timeout=60, transport=transport
        )
        self._lock = threading.Lock()
        self.refused = 0
        self.failed_queries = 0

    def send(self, due: float) -> Sent | None:
        """One event, due at `due` of the monotonic clock; None when it was refused."""
        event_id = str(uuid.uuid4())
        at = time.time_ns() // 1_000_000
        event = {"eventId": event_id, "eventType": "probe", "timestamp": at, "payload": {}}
        answer = self._writer.post(self._events, json={"events": [event]})
        acknowledged, acknowledged_at = time.monotonic(), time.time()
        if answer.status_code == 200:
            return Sent(event_id, at, due, acknowledged, acknowledged_at)
        with self._lock:
            self.refused += 1
        return None

    def wait_for(self, sent: Sent) -> Probe:
        """Ask until an answer has it. Raises BenchFailedError when none has in time."""
        query = {
            "from": sent.at_ms,
            "to": sent.at_ms + 1,
            "filters": [{"field": "eventId", "operator": "=", "value": sent.event_id}],
            "limit": 1,
        }
        begun = time.monotonic()
        asked_late = begun - sent.acknowledged > _LATE_SECONDS
        while True:
            found = self._reader.post(self._query, json=query)
            now = time.monotonic()
            if found.status_code != 200:
                with self._lock:
                    self.failed_queries += 1
            elif found.json()["totalCount"] == 1:
                ack_ms, delay_ms = ((t - sent.due) * 1000 for t in (sent.acknowledged, now))
                return Probe(sent.event_id, sent.acknowledged_at, ack_ms, delay_ms, asked_late)
            if now - begun > self._patience:
                raise BenchFailedError(
                    f"no answer had the event {sent.event_id} {now - sent.acknowledged:.0f} s after"
                    f" its acknowledgement: {found.text[:300]}"
                )
            time.sleep(_POLL_SECONDS)


@dataclass
class Probing:
    """A probe every `pause` seconds, whatever became of those before, until it is closed or `probes`
    have been sent. Closing waits for the answers of all that were due.
    """

    prober: Prober
    pause: float
    probes: int | None = None
    sent: list[Probe] = field(default_factory=list)

    def __enter__(self) -> Probing:
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._senders = ThreadPoolExecutor(_AT_ONCE, "send")
        self._askers = ThreadPoolExecutor(_AT_ONCE, "ask")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.wait()
        if self._error:
            raise self._error

    def wait(self) -> None:
        """Until the schedule is over, and each probe of it has its answer."""
        self._thread.join()
        self._senders.shutdown()
        self._askers.shutdown()

    def _run(self) -> None:
        begun = time.monotonic()
        number = 0
        while self.probes is None or number < self.probes:
            due = begun + number * self.pause
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._senders.submit(self._noted, self._send, due)
            number += 1

    def _send(self, due: float) -> None:
        sent = self.prober.send(due)
        if sent is not None:
            self._askers.submit(self._noted, self._ask, sent)

    def _ask(self, sent: Sent) -> None:
        self.sent.append(self.prober.wait_for(sent))

    def _noted(self, work: Callable[[T], None], of: T) -> None:
        """Do some work; the first error ends the schedule, and comes out of `with`."""
        if self._error:
            return
        try:
            work(of)
        except Exception as error:
            self._error = self._error or error
            self._stop.set()


def percentiles(name: str, delays_ms: Sequence[float]) -> dict[str, float]:
    """`NAME_p50_ms`, `…_p99_ms`, `…_max_ms`; nothing of no delays."""
    ordered = sorted(delays_ms)
    if not ordered:
        return {}

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return {
        f"{name}_p50_ms": at(0.50),
        f"{name}_p99_ms": at(0.99),
        f"{name}_max_ms": round(ordered[-1], 1),
    }
