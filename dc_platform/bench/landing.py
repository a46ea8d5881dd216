"""`dcp bench landing`: Kafka into bronze and silver, validated and deduplicated, beside the plain loop.

The lake already holds `preload` events in the same hours, and 5 % of the input are duplicates of
them, half of these older than a day. Each format is drained by the platform and by each of the others
in turn, `rounds` times; the medians are printed, and the ratio to the plain loop.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dc_platform.bench import base_lake, workload
from dc_platform.bench.contenders import (
    Contender,
    Drained,
    PlainLoop,
    Platform,
    Task,
    drain_once,
)
from dc_platform.stack import ports
from dc_platform.stack.kafka import LocalKafka

FORMATS = ("ndjson", "arrow", "json")
_DUPLICATES = 0.05


def bench_landing(
    *,
    events: int,
    preload: int,
    rounds: int,
    formats: Sequence[str] = FORMATS,
    others: Sequence[Contender] = (),
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the bench in a directory of its own, which is removed at the end.

    `others` are drained beside the platform and the plain loop.
    """
    directory = Path(tempfile.mkdtemp(prefix="dcp-bench-"))
    chosen = ports.choose(needed=("kafka", "kafka_controller"), remembered={}, auto=True)
    try:
        with LocalKafka(directory / "kafka", chosen["kafka"], chosen["kafka_controller"]) as kafka:
            run = _Run(directory, kafka.bootstrap, events, rounds, say)
            return run.all(preload, formats, [PlainLoop(), *others])
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Run:
    def __init__(
        self,
        directory: Path,
        bootstrap: str,
        events: int,
        rounds: int,
        say: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._bootstrap = bootstrap
        self._events = events
        self._rounds = rounds
        self._say = say
        self._now_ms = time.time_ns() // 1_000_000

    def all(
        self, preload: int, formats: Sequence[str], others: Sequence[Contender]
    ) -> dict[str, Any]:
        base = self._directory / "base"
        duplicates = self._build(base, preload)
        result: dict[str, Any] = {
            "events": self._events,
            "preloaded_events": preload,
            "duplicates": len(duplicates),
            "rounds": self._rounds,
        }
        for format_ in formats:
            blocks = workload.generate(self._events, now_ms=self._now_ms, duplicates=duplicates)
            count, size = workload.produce(
                self._bootstrap, f"bench-{format_}", format_, blocks, self._now_ms
            )
            self._say(f"{format_}: {count:,} events of {size / count:.0f} bytes in Kafka")
            contenders = [Platform(base, preload), *others]
            result |= self._compare(format_, len(duplicates), contenders)
        return result

    def _build(self, base: Path, preload: int) -> list[workload.Event]:
        self._say(f"lake: {preload:,} events")
        begun = time.monotonic()
        duplicates = base_lake.build(
            base,
            preload,
            now_ms=self._now_ms,
            duplicates=int(self._events * _DUPLICATES),
            # A block has one source: fewer blocks than sources bring no duplicates of the others.
            sources=max(1, min(workload.SOURCES, self._events // workload.BLOCK_EVENTS)),
            progress=lambda rows: self._say(f"lake: {rows:,} of {preload:,} events"),
        )
        self._say(f"lake: built in {time.monotonic() - begun:.0f} s")
        return duplicates

    def _compare(
        self, format_: str, duplicates: int, contenders: Sequence[Contender]
    ) -> dict[str, Any]:
        drains: dict[tuple[str, str], list[Drained]] = {}
        able = [c for c in contenders if format_ in c.formats]
        for number in range(self._rounds):
            for contender in able:
                task = Task(
                    self._bootstrap,
                    f"bench-{format_}",
                    format_,
                    self._events,
                    duplicates,
                    self._directory / f"{contender.name}-{format_}-{number}",
                )
                for kind, done in drain_once(contender, task).items():
                    drains.setdefault((contender.name, kind), []).extend(done)
                    rates = ", ".join(f"{d.events / d.seconds:,.0f}" for d in done)
                    self._say(f"{format_}: {contender.name} {kind} {rates} events/s")
        return figures(format_, drains)


def figures(format_: str, drains: Mapping[tuple[str, str], Sequence[Drained]]) -> dict[str, float]:
    """The medians of (contender, kind) → its drains; the platform's have no name of their own."""
    result: dict[str, float] = {}
    for (name, kind), done in drains.items():
        parts = [format_, "" if name == Platform.name else name, kind]
        prefix = "_".join(part for part in parts if part)
        result[f"{prefix}_events_per_second"] = round(_median(d.events / d.seconds for d in done))
        from_start = [d.events / d.from_start_seconds for d in done if d.from_start_seconds]
        if from_start:
            result[f"{prefix}_from_start_events_per_second"] = round(_median(from_start))
        result[f"{prefix}_cpu_seconds"] = round(_median(d.cpu_seconds for d in done), 2)
        result[f"{prefix}_peak_rss_mb"] = round(_median(d.peak_rss_mb for d in done))
    ours = result[f"{format_}_events_per_second"]
    plain = result[f"{format_}_plain_loop_events_per_second"]
    return result | {f"{format_}_ratio": round(ours / plain, 3)}


def _median(values: Iterable[float]) -> float:
    return statistics.median(list(values))
