"""Single events sent through the gateway, and the time until POST /api/v1/query has them."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.stack import Stack

_POLL_SECONDS = 0.005
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Probe:
    """An acknowledged event. Epoch seconds; `delay_ms` from the ack to the first answer with it."""

    event_id: str
    acknowledged_at: float
    delay_ms: float


class Prober:
    """Sends one event at a time, and waits `patience` seconds for it. Not thread-safe."""

    def __init__(self, stack: Stack, patience: float = _PATIENCE_SECONDS) -> None:
        self._stack = stack
        self._patience = patience
        self._writer = httpx.Client(headers={"X-API-Key": stack.key}, timeout=30)
        self._reader = httpx.Client(headers={"Authorization": f"Bearer {stack.token}"}, timeout=60)
        self.refused = 0
        self.failed_queries = 0

    def send(self) -> Probe | None:
        """One event and its way; None when the gateway refused it.

        Raises BenchFailedError when no answer has it in time.
        """
        event_id = str(uuid.uuid4())
        at = time.time_ns() // 1_000_000
        event = {"eventId": event_id, "eventType": "probe", "timestamp": at, "payload": {}}
        url = f"{self._stack.info['gateway']}/api/v1/events"
        answer = self._writer.post(url, json={"events": [event]})
        begun, acknowledged_at = time.perf_counter(), time.time()
        if answer.status_code != 200:
            self.refused += 1
            return None
        query = {
            "from": at,
            "to": at + 1,
            "filters": [{"field": "eventId", "operator": "=", "value": event_id}],
            "limit": 1,
        }
        while True:
            found = self._reader.post(f"{self._stack.info['query']}/api/v1/query", json=query)
            waited = time.perf_counter() - begun
            if found.status_code != 200:
                self.failed_queries += 1
            elif found.json()["totalCount"] == 1:
                return Probe(event_id, acknowledged_at, waited * 1000)
            if waited > self._patience:
                raise BenchFailedError(
                    f"no answer had the event {event_id} after {waited:.0f} s: {found.text[:300]}"
                )
            time.sleep(_POLL_SECONDS)


@dataclass
class Probing:
    """Probes in a thread of their own, one every `pause` seconds or slower, until it is closed."""

    stack: Stack
    pause: float
    patience: float = _PATIENCE_SECONDS
    sent: list[Probe] = field(default_factory=list)

    def __enter__(self) -> Probing:
        self.prober = Prober(self.stack, self.patience)
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                due = max(due + self.pause, time.monotonic())
                if (probe := self.prober.send()) is not None:
                    self.sent.append(probe)
        except (httpx.HTTPError, BenchFailedError) as error:
            self._error = error


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
