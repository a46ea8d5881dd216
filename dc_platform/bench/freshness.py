"""`dcp bench freshness`: from an event's sending to its appearance in POST /api/v1/query.

A whole stack is started. A feeder sends events at a steady rate; beside it single events are sent on a
schedule, and from the acknowledgement of each its id is asked for until an answer has it. Timed is all
of it from the moment at which the event was due. That is done with landing running, and again with
landing stopped, while the tail grows for minutes at a high rate.

Landing is stopped by SIGSTOP to the landing run and to Dagster's daemon, so that nobody takes over.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.probes import Prober, Probing, percentiles
from dc_platform.bench.stack import Stack, running_stack, wait_for

_FEED_BATCH = 100
_FEED_BATCH_FAST = 1_000
_PROBE_PAUSE = 0.125
# An answer takes half a second of both cores then: more often, they would wait for each other.
_PROBE_PAUSE_FLOODED = 1.0


def bench_freshness(
    *,
    rate: int,
    probes: int,
    stopped_minutes: float,
    stopped_rate: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the bench on a stack of its own, which is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="dcp-bench-"))
    try:
        with running_stack(directory, say) as stack:
            result = {"rate_events_per_second": rate, "probes": probes}
            result |= _landing_runs(stack, rate, probes, say)
            result |= _landing_stopped(stack, rate, probes, stopped_minutes, stopped_rate, say)
            return result
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Feeder:
    """Sends events at a steady rate until it is closed."""

    def __init__(self, stack: Stack, rate: int) -> None:
        self._stack = stack
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged = 0

    def __enter__(self) -> _Feeder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        size = _FEED_BATCH if self._rate <= 5_000 else _FEED_BATCH_FAST
        client = httpx.Client(headers={"X-API-Key": self._stack.key}, timeout=30)
        url = f"{self._stack.info['gateway']}/api/v1/events"
        due = time.monotonic()
        while not self._stop.is_set():
            answer = client.post(url, content=_body(size), headers=_NDJSON)
            if answer.status_code == 200:
                self.acknowledged += answer.json()["accepted"]
            due += size / self._rate
            # A pause of the machine must not be made up for by a burst.
            due = max(due, time.monotonic() - 1.0)
            self._stop.wait(max(0.0, due - time.monotonic()))


_NDJSON = {"Content-Type": "application/x-ndjson"}


def _body(size: int) -> bytes:
    at = time.time_ns() // 1_000_000
    ids = os.urandom(16 * size)
    return b"\n".join(
        b'{"eventId":"%s","timestamp":%d,"eventType":"reading","payload":{"sensor":%d,"value":%d.5,'
        b'"unit":"celsius","site":"hall-%02d","note":"%s"}}'
        % (
            str(uuid.UUID(bytes=ids[16 * i : 16 * i + 16])).encode(),
            at,
            i,
            i % 90,
            i % 40,
            b"x" * 100,
        )
        for i in range(size)
    )


def _probe(name: str, stack: Stack, probes: int, pause: float = _PROBE_PAUSE) -> dict[str, float]:
    """The figures of so many probes, one each `pause` seconds."""
    with Probing(Prober(stack), pause, probes) as probing:
        probing.wait()
    if probing.prober.refused:
        raise BenchFailedError("the gateway refused a probe: see logs/gateway.log of the stack")
    return {
        **percentiles(name, [probe.delay_ms for probe in probing.sent]),
        **percentiles(f"{name}_ack", [probe.ack_ms for probe in probing.sent]),
    }


def _landing_runs(
    stack: Stack, rate: int, probes: int, say: Callable[[str], None]
) -> dict[str, Any]:
    with _Feeder(stack, rate):
        say(f"feeding {rate} events/s; waiting for the landing run")
        wait_for(lambda: "landing" in stack.pids(), 120, "a landing run")
        time.sleep(5)
        say(f"{probes} probes with landing running")
        result: dict[str, Any] = _probe("running", stack, probes)
    result["running_serving_rss_mb"] = round(stack.memory_mb("serving"))
    say(json.dumps(result))
    return result


def _landing_stopped(
    stack: Stack,
    rate: int,
    probes: int,
    minutes: float,
    stopped_rate: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    pids = stack.pids()
    frozen = [pids["dagster_daemon"], pids["landing"]]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        with _Feeder(stack, rate):
            time.sleep(2)
            say(f"{probes} probes with landing stopped")
            result: dict[str, Any] = _probe("stopped", stack, probes)
        say(json.dumps(result))
        result |= _flood(stack, minutes, stopped_rate, say)
    finally:
        for pid in frozen:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGCONT)
    return result


def _flood(stack: Stack, minutes: float, rate: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The tail grows: memory of serving, and freshness again at the end."""
    peak = 0.0
    begun = time.monotonic()
    with _Feeder(stack, rate) as feeder:
        next_note = 0.0
        while time.monotonic() - begun < minutes * 60:
            peak = max(peak, stack.memory_mb("serving"))
            if time.monotonic() >= next_note:
                next_note = time.monotonic() + 30
                say(f"{feeder.acknowledged:,} events wait; serving has {peak:.0f} MB at most")
            time.sleep(1)
        # At one moment: the probes take seconds in which the feeder goes on.
        sent, seconds = feeder.acknowledged, time.monotonic() - begun
        health = stack.serving_state()
        result: dict[str, Any] = _probe("flooded", stack, 30, _PROBE_PAUSE_FLOODED)
    return {
        **result,
        "flooded_events": sent,
        "flooded_events_per_second": round(sent / seconds),
        "flooded_seconds": round(seconds),
        "flooded_complete": health["complete"],
        "flooded_serving_peak_rss_mb": round(max(peak, stack.memory_mb("serving"))),
    }
