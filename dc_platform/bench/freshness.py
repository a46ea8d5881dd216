"""`dcp bench freshness`: from the acknowledgement of an event to its appearance in POST /api/v1/query.

A whole stack is started. A feeder sends events at a steady rate; beside it a prober sends one event
at a time and, from its acknowledgement on, asks for its id until an answer has it. That is done with
landing running, and again with landing stopped, while the tail grows for minutes at a high rate.

Landing is stopped by SIGSTOP to the landing run and to Dagster's daemon, so that nobody takes over.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from dc_platform.bench.measure import BenchFailedError

_FEED_BATCH = 100
_FEED_BATCH_FAST = 1_000
_POLL_SECONDS = 0.005
_GIVE_UP_SECONDS = 30.0
_START_SECONDS = 300
_PROBE_PAUSE = 0.05


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
        with _stack(directory, say) as stack:
            result = {"rate_events_per_second": rate, "probes": probes}
            result |= _landing_runs(stack, rate, probes, say)
            result |= _landing_stopped(stack, rate, probes, stopped_minutes, stopped_rate, say)
            return result
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Stack:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.info: dict[str, Any] = json.loads((directory / "stack.json").read_text())
        source = _dcp("source", "create", "bench", "--type", "SERVER", "--json", at=directory)
        token = _dcp("token", "create", "--scope", "query", "--json", at=directory)
        self.key: str = json.loads(source)["apiKey"]
        self.token: str = json.loads(token)["token"]

    def pids(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.directory / "stack.json").read_text())["pids"]
        return found

    def memory_mb(self, part: str) -> float:
        return float(psutil.Process(self.pids()[part]).memory_info().rss) / 2**20


def _dcp(*arguments: str, at: Path, seconds: float = 120) -> str:
    command = [sys.executable, "-m", "dc_platform.cli.main", *arguments, "--data-dir", str(at)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise BenchFailedError(f"dcp {' '.join(arguments)}: {done.stderr[-1000:]}")
    return done.stdout


@contextmanager
def _stack(directory: Path, say: Callable[[str], None]) -> Iterator[_Stack]:
    say("starting a stack")
    _dcp("up", "--detach", "--ports", "auto", at=directory, seconds=_START_SECONDS)
    try:
        yield _Stack(directory)
    finally:
        _dcp("down", at=directory)


class _Feeder:
    """Sends events at a steady rate until it is closed."""

    def __init__(self, stack: _Stack, rate: int) -> None:
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


def _probe(stack: _Stack, probes: int) -> list[float]:
    """Milliseconds from the acknowledgement to the first answer with the event, for each probe."""
    writer = httpx.Client(headers={"X-API-Key": stack.key}, timeout=30)
    reader = httpx.Client(headers={"Authorization": f"Bearer {stack.token}"}, timeout=60)
    delays = []
    for _ in range(probes):
        event_id = str(uuid.uuid4())
        at = time.time_ns() // 1_000_000
        event = {"eventId": event_id, "eventType": "probe", "timestamp": at, "payload": {}}
        answer = writer.post(f"{stack.info['gateway']}/api/v1/events", json={"events": [event]})
        answer.raise_for_status()
        acknowledged = time.perf_counter()
        query = {
            "from": at,
            "to": at + 1,
            "filters": [{"field": "eventId", "operator": "=", "value": event_id}],
            "limit": 1,
        }
        while True:
            found = reader.post(f"{stack.info['query']}/api/v1/query", json=query)
            waited = time.perf_counter() - acknowledged
            if found.status_code == 200 and found.json()["totalCount"] == 1:
                break
            if waited > _GIVE_UP_SECONDS:
                raise BenchFailedError(f"the event {event_id} did not appear: {found.text[:300]}")
            time.sleep(_POLL_SECONDS)
        delays.append(waited * 1000)
        time.sleep(_PROBE_PAUSE)
    return delays


def _percentiles(name: str, delays: list[float]) -> dict[str, float]:
    ordered = sorted(delays)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return {
        f"{name}_p50_ms": at(0.50),
        f"{name}_p99_ms": at(0.99),
        f"{name}_max_ms": round(ordered[-1], 1),
    }


def _landing_runs(
    stack: _Stack, rate: int, probes: int, say: Callable[[str], None]
) -> dict[str, Any]:
    with _Feeder(stack, rate):
        say(f"feeding {rate} events/s; waiting for the landing run")
        _wait_for(lambda: "landing" in stack.pids(), 120, "a landing run")
        time.sleep(5)
        say(f"{probes} probes with landing running")
        result: dict[str, Any] = _percentiles("running", _probe(stack, probes))
    result["running_serving_rss_mb"] = round(stack.memory_mb("serving"))
    say(json.dumps(result))
    return result


def _landing_stopped(
    stack: _Stack,
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
            result: dict[str, Any] = _percentiles("stopped", _probe(stack, probes))
        say(json.dumps(result))
        result |= _flood(stack, minutes, stopped_rate, say)
    finally:
        for pid in frozen:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGCONT)
    return result


def _flood(stack: _Stack, minutes: float, rate: int, say: Callable[[str], None]) -> dict[str, Any]:
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
        seconds = time.monotonic() - begun
        health = httpx.get(f"{stack.info['query']}/healthz", timeout=30).json()
        result = _percentiles("flooded", _probe(stack, 30))
        sent = feeder.acknowledged
    return {
        **result,
        "flooded_events": sent,
        "flooded_events_per_second": round(sent / seconds),
        "flooded_seconds": round(seconds),
        "flooded_complete": health["complete"],
        "flooded_serving_peak_rss_mb": round(max(peak, stack.memory_mb("serving"))),
    }


def _wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchFailedError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)
