"""`dcp bench landing`: Kafka into bronze and silver, validated and deduplicated, beside the plain loop.

The lake already holds `preload` events in the same hours, and 5 % of the input are duplicates of
them, half of these older than a day. Each format is drained by the platform and by the plain loop in
turn, `rounds` times; the medians and their ratio are printed.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dc_platform.bench import base_lake, workload
from dc_platform.bench.measure import BenchFailedError, Cost, run_python
from dc_platform.stack import ports
from dc_platform.stack.kafka import LocalKafka

FORMATS = ("ndjson", "arrow", "json")
_DUPLICATES = 0.05


def bench_landing(
    *,
    events: int,
    preload: int,
    rounds: int,
    formats: tuple[str, ...] = FORMATS,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the bench in a directory of its own, which is removed at the end."""
    directory = Path(tempfile.mkdtemp(prefix="dcp-bench-"))
    chosen = ports.choose(needed=("kafka", "kafka_controller"), remembered={}, auto=True)
    try:
        with LocalKafka(directory / "kafka", chosen["kafka"], chosen["kafka_controller"]) as kafka:
            return _Run(directory, kafka.bootstrap, events, preload, rounds, say).run(formats)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Run:
    def __init__(
        self,
        directory: Path,
        bootstrap: str,
        events: int,
        preload: int,
        rounds: int,
        say: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._bootstrap = bootstrap
        self._events = events
        self._preload = preload
        self._rounds = rounds
        self._say = say
        self._now_ms = time.time_ns() // 1_000_000
        self._duplicates = 0

    def run(self, formats: tuple[str, ...]) -> dict[str, Any]:
        base = self._directory / "base"
        self._say(f"lake: {self._preload:,} events")
        begun = time.monotonic()
        duplicates = base_lake.build(
            base,
            self._preload,
            now_ms=self._now_ms,
            duplicates=int(self._events * _DUPLICATES),
            progress=lambda rows: self._say(f"lake: {rows:,} of {self._preload:,} events"),
        )
        self._duplicates = len(duplicates)
        self._say(f"lake: built in {time.monotonic() - begun:.0f} s")
        result: dict[str, Any] = {
            "events": self._events,
            "preloaded_events": self._preload,
            "duplicates": self._duplicates,
            "rounds": self._rounds,
        }
        for format_ in formats:
            blocks = workload.generate(self._events, now_ms=self._now_ms, duplicates=duplicates)
            count, size = workload.produce(
                self._bootstrap, f"bench-{format_}", format_, blocks, self._now_ms
            )
            self._say(f"{format_}: {count:,} events of {size / count:.0f} bytes in Kafka")
            result.update(self._compare(format_, base))
        return result

    def _compare(self, format_: str, base: Path) -> dict[str, Any]:
        ours: list[tuple[float, Cost]] = []
        plain: list[float] = []
        for number in range(self._rounds):
            ours.append(self._ours(format_, base, number))
            self._say(f"{format_}: dcp land {ours[-1][0]:,.0f} events/s")
            plain.append(self._plain(format_, number))
            self._say(f"{format_}: plain loop {plain[-1]:,.0f} events/s")
        rate, cost = sorted(ours, key=lambda o: o[0])[len(ours) // 2]
        plain_rate = statistics.median(plain)
        return {
            f"{format_}_events_per_second": round(rate),
            f"{format_}_cpu_seconds": round(cost.cpu_seconds, 2),
            f"{format_}_peak_rss_mb": round(cost.peak_rss_mb),
            f"{format_}_plain_loop_events_per_second": round(plain_rate),
            f"{format_}_ratio": round(rate / plain_rate, 3),
        }

    def _ours(self, format_: str, base: Path, number: int) -> tuple[float, Cost]:
        target = self._directory / f"lake-{format_}-{number}"
        base_lake.copy(base, target)
        environment = {
            "DCP_KAFKA_BOOTSTRAP": self._bootstrap,
            "DCP_TOPIC": f"bench-{format_}",
            "DCP_LAKE_URI": str(target),
            "DCP_DATA_DIR": str(self._directory / "data"),
            "DCP_UNKNOWN_SOURCES": "accept",
        }
        cost = run_python(
            "dc_platform.cli.main",
            ["land", "--until-caught-up", "--json"],
            environment=environment,
            log=self._directory / "land.log",
        )
        got = cost.result
        expected = (self._events, self._events - self._duplicates, self._duplicates, 0)
        found = tuple(got[k] for k in ("received", "landed", "duplicates", "rejected"))
        if found != expected:
            raise BenchFailedError(
                f"{format_}: received, landed, duplicates, rejected are {found}, not {expected}"
            )
        shutil.rmtree(target)
        return got["received"] / got["seconds"], cost

    def _plain(self, format_: str, number: int) -> float:
        target = self._directory / f"plain-{format_}-{number}"
        cost = run_python(
            "dc_platform.bench.plain_loop",
            [
                *("--bootstrap", self._bootstrap, "--topic", f"bench-{format_}"),
                *("--uri", str(target), "--format", format_),
            ],
            environment={},
            log=self._directory / "plain.log",
        )
        if cost.result["events"] != self._events:
            raise BenchFailedError(f"the plain loop landed {json.dumps(cost.result)}")
        shutil.rmtree(target)
        return float(cost.result["events"]) / float(cost.result["seconds"])
