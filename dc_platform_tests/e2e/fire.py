"""The union under fire: who sends, who counts, and what the counts have to be."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import numpy as np

from dc_platform_tests.e2e.platform import Source

_EVERY_SECONDS = 0.1


class Order(NamedTuple):
    """What is sent, where: events per second in batches of so many."""

    gateway: str
    query: str
    token: str
    sources: Sequence[Source]
    rate: int
    batch: int
    seed: int
    base_ms: int

    def as_json(self) -> str:
        """For `fire_sender`."""
        sources = [{"id": source.source_id, "key": source.key} for source in self.sources]
        return json.dumps(self._asdict() | {"sources": sources})


class Sent:
    """What one source was acknowledged."""

    def __init__(self, told: dict[str, Any]) -> None:
        assert not told["error"], told["error"]
        self.source: str = told["source"]
        self.begun = [ack[0] for ack in told["acks"]]
        self.acknowledged = [ack[1] for ack in told["acks"]]
        self.totals: list[int] = [ack[2] for ack in told["acks"]]
        self.again = (told["again_before"], told["again_after"])

    @property
    def events(self) -> int:
        """All of them, each counted once."""
        return self.totals[-1]

    def sent_by(self, moment: float) -> int:
        """Events that can have been in Kafka by then."""
        batches = bisect_right(self.begun, moment)
        return self.totals[batches - 1] if batches else 0

    def behind(self, count: int, moment: float) -> float:
        """Seconds since the acknowledgement of the oldest event that is not among the first `count`."""
        missing = bisect_right(self.totals, count)
        if missing == len(self.acknowledged):
            return 0.0
        return max(0.0, moment - self.acknowledged[missing])


@contextmanager
def sending(order: Order) -> Iterator[list[Sent]]:
    """Send for the length of the block; the list is filled at its end."""
    sent: list[Sent] = []
    command = [sys.executable, "-m", "dc_platform_tests.e2e.fire_sender"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdin is not None
            child.stdin.write(order.as_json() + "\n")
            child.stdin.flush()
            yield sent
            output, _ = child.communicate(timeout=180)
        finally:
            child.kill()
    sent += [Sent(told) for told in json.loads(output)]


class Look(NamedTuple):
    """One answer: when it was asked and had, events and latest number by source."""

    asked: float
    answered: float
    counts: dict[str, int]
    latest: dict[str, int]
    complete: bool


class Watch(threading.Thread):
    """Counts by source, every 100 ms, through POST /api/v1/query."""

    def __init__(self, order: Order) -> None:
        super().__init__(daemon=True)
        self._order = order
        self._ended = threading.Event()
        self.looks: list[Look] = []
        self.refused: list[str] = []

    def run(self) -> None:
        """Until `end`."""
        headers = {"Authorization": f"Bearer {self._order.token}"}
        due = time.monotonic()
        with httpx.Client(headers=headers, timeout=60) as client:
            while not self._ended.is_set():
                self._look(client)
                due = max(due + _EVERY_SECONDS, time.monotonic())
                self._ended.wait(due - time.monotonic())

    def _look(self, client: httpx.Client) -> None:
        query = {
            "filters": [{"field": "eventType", "operator": "=", "value": "fire"}],
            "aggregations": [
                {"function": "COUNT", "groupBy": ["sourceId"], "as": "n"},
                {"function": "MAX", "field": "timestamp", "groupBy": ["sourceId"], "as": "latest"},
            ],
        }
        asked = time.monotonic()
        answer = client.post(f"{self._order.query}/api/v1/query", json=query)
        answered = time.monotonic()
        if answer.status_code != 200:
            self.refused.append(answer.text)
            return
        found = answer.json()
        base = self._order.base_ms
        rows = found["results"]
        self.looks.append(
            Look(
                asked,
                answered,
                {row["sourceId"]: row["n"] for row in rows},
                {row["sourceId"]: round(row["latest"]) - base for row in rows},
                found.get("complete", True),
            )
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count for the length of the block."""
        self.start()
        try:
            yield
        finally:
            self._ended.set()
            self.join(90)


def wrong(looks: Sequence[Look], sent: Sequence[Sent]) -> list[str]:
    """Counts that fell, doubled, have a hole, or are of what nobody sent."""
    found = []
    for of in sent:
        before = 0
        for look in looks:
            count, latest = look.counts.get(of.source, 0), look.latest.get(of.source, -1)
            if count < before:
                found.append(f"{of.source} fell from {before} to {count}")
            if count != latest + 1:
                found.append(f"{of.source} has {count} events up to number {latest}")
            if count > of.sent_by(look.answered):
                found.append(f"{of.source} has {count} events of {of.sent_by(look.answered)}")
            before = count
    return found


def lags(looks: Sequence[Look], sent: Sequence[Sent]) -> dict[str, float]:
    """How far answers are behind the acks, in ms: each by its source that is furthest behind.

    `lag`: when it was asked, the time since the oldest acknowledgement that it lacks. `seen`: the same
    when it was had, so with the time that answering took.
    """
    asked = [max(s.behind(x.counts.get(s.source, 0), x.asked) for s in sent) for x in looks]
    seen = [max(s.behind(x.counts.get(s.source, 0), x.answered) for s in sent) for x in looks]
    took = [x.answered - x.asked for x in looks]
    return {
        f"{name}_{label}_ms": round(float(np.quantile(values, at)) * 1000, 1)
        for name, values in (("lag", asked), ("seen", seen), ("answer", took))
        for label, at in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }
