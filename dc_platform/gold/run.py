"""One run of gold: pin, find what is pending, build it into a scratch file, test it there, publish it.

A run that dies anywhere is repeated from the beginning: hours that are published already are found to
be what they were. Of two runs at once the one that is refused begins anew from what the other left.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from dc_platform.contracts.gold import DBT_TABLES, GOLD_TABLES
from dc_platform.contracts.sketch_tables import METRICS_HOURLY
from dc_platform.errors import CommitConflictError
from dc_platform.gold.build import Built, build
from dc_platform.gold.dbt import Outcome
from dc_platform.gold.pending import (
    Pinned,
    Work,
    by_hand,
    completed,
    everything,
    pending,
    redefined,
)
from dc_platform.gold.producers import Extras, Producers
from dc_platform.gold.publish import Published, publish
from dc_platform.lake.store import Lake
from dc_platform.points import Point, Reached, unarmed

log = logging.getLogger(__name__)

_RETRIES = 5
# Rows of silver that one build aggregates. Quantiles and different users are held in memory, and a
# build is published as a whole.
_ROWS_AT_ONCE = 20_000_000


@dataclass
class Report:
    """What a run did. `hours` and `days` (epoch days) were built; `tables` has what was published;
    `silver_version` is the newest that was built from. Seconds are of the wall clock.
    """

    hours: int = 0
    days: set[int] = field(default_factory=set)
    rows_read: int = 0
    tables: dict[str, list[Published]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    silver_version: int = 0
    everything: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that were published."""
        return sum(done.rows for of_table in self.tables.values() for done in of_table)

    @property
    def bytes(self) -> int:
        """Bytes that were published."""
        return sum(done.bytes for of_table in self.tables.values() for done in of_table)

    def changed_days(self, table: str) -> dict[int, int]:
        """Epoch day → rows of a table that it has now; only days that changed."""
        return {day: rows for done in self.tables.get(table, []) for day, rows in done.days.items()}


Choose = Callable[[Pinned], Work]
_PLAIN = Extras()


def keep_gold(
    lake: Lake, cache: Path, extras: Extras = _PLAIN, *, reached: Reached = unarmed
) -> Report:
    """Build and publish what gold lacks."""
    report = _run(lake, cache, pending, extras, reached)
    if extras.differ_from(Pinned(lake).metrics_version):
        _run(lake, cache, redefined, extras, reached, report)
    return report


def rebuild_all(
    lake: Lake, cache: Path, extras: Extras = _PLAIN, *, reached: Reached = unarmed
) -> Report:
    """Build every hour anew."""
    return _run(lake, cache, everything, extras, reached)


def rebuild_hours(
    lake: Lake,
    cache: Path,
    first: int,
    last: int,
    extras: Extras = _PLAIN,
    *,
    reached: Reached = unarmed,
) -> Report:
    """Build the epoch hours from `first` to `last` anew: a backfill. What is covered stays as it is."""
    return _run(lake, cache, lambda pinned: by_hand(pinned, first, last), extras, reached)


def _run(
    lake: Lake,
    cache: Path,
    choose: Choose,
    extras: Extras,
    reached: Reached,
    report: Report | None = None,
) -> Report:
    report = report or Report()
    begun, used = time.monotonic(), _cpu_seconds()
    producers = extras.pinned()
    with _scratch(cache) as root:
        pinned = Pinned(lake)
        work = choose(pinned)
        if extras.metrics is not None and (work.everything or work.only_metrics):
            # All hours have these definitions then; some hours would say nothing of the others.
            version = {pinned.metrics_app: producers.definitions.version}
            work = replace(work, covers={**work.covers, **version})
        report.everything |= work.everything
        for number, part in enumerate(in_parts(work, _ROWS_AT_ONCE)):
            directory = root / str(number)
            directory.mkdir()
            _one(lake, cache, part, extras, directory, report, reached)
    report.seconds += round(time.monotonic() - begun, 3)
    report.cpu_seconds += round(_cpu_seconds() - used, 3)
    return report


def in_parts(work: Work, rows: int) -> Iterator[Work]:
    """The work in whole days of so many rows; what it covers is covered with the last."""
    days: list[int] = []
    parts: list[list[int]] = [days]
    of_day: dict[int, dict[int, int]] = {}
    for hour, count in work.hours.items():
        of_day.setdefault(hour // 24, {})[hour] = count
    filled = 0
    for day in sorted(work.days):
        size = sum(of_day.get(day, {}).values())
        if days and filled + size > rows:
            days, filled = [], 0
            parts.append(days)
        days.append(day)
        filled += size
    if not work:
        return
    for number, chosen in enumerate(parts, 1):
        hours = {h: n for day in chosen for h, n in of_day.get(day, {}).items()}
        covers = work.covers if number == len(parts) else {}
        yield replace(work, hours=hours, days=frozenset(chosen), covers=covers)


def _one(
    lake: Lake,
    cache: Path,
    work: Work,
    extras: Extras,
    root: Path,
    report: Report,
    reached: Reached,
) -> None:
    """Build and publish a part; begins anew when another run was quicker."""
    for attempt in range(_RETRIES):
        # Not what the whole run pinned: each part and attempt is of the newest versions.
        pinned = Pinned(lake)
        # After the tables: definitions that another run has covered by then are these, or newer ones.
        producers = extras.pinned()
        work = completed(pinned, work)
        directory = root / str(attempt)
        directory.mkdir()
        built = build(pinned, work, directory, cache)
        reached(Point.GOLD_BUILT)
        try:
            done = _publish(pinned, built, work, producers, reached)
        except CommitConflictError as error:
            log.info("%s; building anew", error)
            continue
        for name, published in done.items():
            report.tables.setdefault(name, []).append(published)
        report.hours += len(work.hours)
        report.days |= work.days
        report.rows_read += sum(work.hours.values())
        report.outcomes += built.outcomes
        report.silver_version = pinned.silver.version
        return
    raise CommitConflictError(f"gold: {_RETRIES} times another run was quicker; trying again later")


def _publish(
    pinned: Pinned, built: Built, work: Work, producers: Producers, reached: Reached
) -> Mapping[str, Published]:
    figures = {
        "hours": len(work.hours),
        "days": len(work.days),
        "silver_version": pinned.silver.version,
    }
    rows = {} if work.only_metrics else {spec.name: built.rows(spec) for spec in DBT_TABLES}
    for spec, make in producers.makes:
        if spec is METRICS_HOURLY or not work.only_metrics:
            rows[spec.name] = built.produced(spec, make, work)
    return {
        spec.name: publish(pinned, spec, rows[spec.name], work, figures, reached)
        for spec in GOLD_TABLES
        if spec.name in rows
    }


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A directory beside the cache, where there is room; those that killed runs left go."""
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.glob("scratch-*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    name = f"scratch-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=name, dir=cache) as directory:
        yield Path(directory)


def _cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
