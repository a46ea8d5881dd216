"""A stall is seen by every probe that was due in it, not only by the one that met it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast

import httpx
import pytest

from dc_platform.bench import probes
from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.probes import Probe, Prober, Probing, Sent, percentiles
from dc_platform.bench.stack import Stack
from dc_platform_tests.stack.harness import wait_for

PAUSE = 0.01
PROBES = 50


class Target:
    """A gateway and its query in one, which stands still when it is told to."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.lock = threading.Lock()
        self.inside = self.most = self.seen = self.requests = 0
        self.status = 200

    def prober(self, patience: float = 30.0) -> Prober:
        stack = SimpleNamespace(
            info={"gateway": "http://gateway", "query": "http://query"}, key="k", token="t"
        )
        transport = httpx.MockTransport(self._answer)
        return Prober(cast(Stack, stack), patience, transport=transport)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        with self._counted():
            self.goes_on.wait(30)
        if request.url.host == "gateway":
            return httpx.Response(self.status)
        assert json.loads(request.content)["limit"] == 1
        return httpx.Response(200, json={"totalCount": self.seen})

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self.lock:
            self.inside += 1
            self.requests += 1
            self.most = max(self.most, self.inside)
        yield
        with self.lock:
            self.inside -= 1


def test_a_stall_is_in_the_percentiles_not_only_in_the_maximum() -> None:
    target = Target()
    target.seen = 1
    target.goes_on.clear()
    prober = target.prober()
    begun = time.monotonic()
    with Probing(prober, PAUSE, PROBES) as probing:
        time.sleep(PAUSE * PROBES)
        stall_ms = (time.monotonic() - begun) * 1000
        target.goes_on.set()
        probing.wait()
    found = percentiles("x", [probe.delay_ms for probe in probing.sent])
    assert len(probing.sent) == PROBES
    assert target.most <= 2 * probes._AT_ONCE
    # Those that were due in its middle waited for half of it.
    assert found["x_p99_ms"] >= stall_ms * 0.9
    assert found["x_p50_ms"] >= stall_ms * 0.4
    assert all(0 < probe.ack_ms <= probe.delay_ms for probe in probing.sent)


def test_acknowledgements_do_not_wait_for_answers() -> None:
    target = Target()
    prober = target.prober()
    answers = threading.Event()
    waited_for = prober.wait_for

    def late(sent: Sent) -> Probe:
        answers.wait(30)
        return waited_for(sent)

    prober.wait_for = late  # type: ignore[method-assign]
    with Probing(prober, PAUSE, 5 * probes._AT_ONCE) as probing:
        wait_for(lambda: target.requests == 5 * probes._AT_ONCE)
        target.seen = 1
        answers.set()
    assert len(probing.sent) == 5 * probes._AT_ONCE


def test_a_probe_that_no_answer_has_fails_the_bench() -> None:
    target = Target()
    with (
        pytest.raises(BenchFailedError, match="no answer had the event"),
        Probing(target.prober(patience=0.05), PAUSE) as probing,
    ):
        probing.wait()


def test_what_was_refused_is_counted() -> None:
    target = Target()
    target.status = 503
    with Probing(target.prober(), PAUSE, 20) as probing:
        probing.wait()
    assert (probing.sent, probing.prober.refused) == ([], 20)
