"""Which hours gold has to build anew: those of the rows that came into silver, or left it, since the
version that gold covers.

The covered version is a txn of gold's own commits, so it is there with the rows, or neither is. Its app
id names the models and the table that is covered: other models, or a silver that was made anew, find
nothing covered, and every hour is pending. So it is when silver's log no longer reaches back. The
calendar is never asked: an event that comes years late touches its hour like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property

from dc_platform.contracts.gold import EVENTS_HOURLY, GOLD_TABLES
from dc_platform.contracts.sketch_tables import METRICS_HOURLY
from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.gold.project import models_hash
from dc_platform.lake.balance import HOUR_US
from dc_platform.lake.changes import Changes, changes, hours_in, hours_touched
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot

_EPOCH = date(1970, 1, 1).toordinal()
# What is covered, and the time in it that a day of gold is told by.
_FOLLOWED = ((SILVER_EVENTS, "event_time"), (SILVER_QUARANTINE, "received_at"))


def covered_app(spec: TableSpec, table_id: str) -> str:
    """Whose txn in a table of gold says which version of a table is covered."""
    return f"gold/{models_hash()}/{spec.name}/{table_id}"


def metrics_app(silver_id: str) -> str:
    """Whose txn says with which version of the registry metrics are defined."""
    return f"gold/metrics/{silver_id}"


class Pinned:
    """Gold and what it is built from, at one moment.

    Gold is opened first: a version that it covers is then never newer than the one that is pinned, so
    a run that was overtaken is refused at its commit and never puts older rows over newer ones.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        for spec in (*GOLD_TABLES, SILVER_QUARANTINE, SILVER_EVENTS):
            lake.ensure(spec)
        self.gold = {spec.name: LakeTable(lake, spec) for spec in GOLD_TABLES}
        # Silver after quarantine, which landing commits first.
        self.followed = {spec.name: LakeTable(lake, spec) for spec, _ in reversed(_FOLLOWED)}

    @cached_property
    def silver(self) -> Snapshot:
        """The files of silver.events."""
        return self.followed[SILVER_EVENTS.name].snapshot()

    @cached_property
    def quarantine(self) -> Snapshot:
        """The files of silver.quarantine."""
        return self.followed[SILVER_QUARANTINE.name].snapshot()

    @cached_property
    def published(self) -> Snapshot:
        """The files of gold.events_hourly."""
        return self.gold[EVENTS_HOURLY.name].snapshot()

    def app_id(self, spec: TableSpec) -> str:
        """Whose txn says which version of a table is covered."""
        return covered_app(spec, self.followed[spec.name].id)

    def covered(self, spec: TableSpec) -> int | None:
        """The version of a table that all of gold covers; None when a table of gold covers none."""
        versions = [table.txn(self.app_id(spec)) for table in self.gold.values()]
        known = [version for version in versions if version is not None]
        return min(known) if len(known) == len(versions) else None

    @property
    def metrics_app(self) -> str:
        """Whose txn says with which version of the registry metrics are defined."""
        return metrics_app(self.followed[SILVER_EVENTS.name].id)

    @property
    def metrics_version(self) -> int | None:
        """The version of the registry whose definitions gold.metrics_hourly covers."""
        return self.gold[METRICS_HOURLY.name].txn(self.metrics_app)

    def versions(self) -> dict[str, int]:
        """App id → pinned version."""
        return {self.app_id(spec): self.followed[spec.name].version for spec, _ in _FOLLOWED}


@dataclass(frozen=True)
class Work:
    """Epoch hours to build, with rows of silver that touch them, and epoch days, theirs among them.

    `covers`: app id → version that gold covers when all of it is published; empty for hours that were
    named by hand. `everything`: no version was covered. `only_metrics`: definitions changed, silver did
    not.
    """

    hours: Mapping[int, int]
    days: frozenset[int]
    covers: Mapping[str, int]
    everything: bool = False
    only_metrics: bool = False

    def __bool__(self) -> bool:
        """Whether there is anything to build."""
        return bool(self.days)


def is_pending(pinned: Pinned) -> bool:
    """Whether gold lacks anything, in some milliseconds: no data file is read."""
    for spec, _ in _FOLLOWED:
        found = _changes(pinned, spec)
        if found is None and not any(
            snapshot.paths for snapshot in (pinned.silver, pinned.quarantine, pinned.published)
        ):
            return False
        if found is None or found.touched:
            return True
    return False


def pending(pinned: Pinned) -> Work:
    """What gold lacks."""
    hours: dict[str, dict[int, int]] = {}
    for spec, column in _FOLLOWED:
        found = _changes(pinned, spec)
        touched = None if found is None else hours_touched(pinned.lake, spec, found, column)
        if touched is None:
            return everything(pinned)
        hours[spec.name] = touched
    of_silver = hours[SILVER_EVENTS.name]
    days = days_of([*of_silver, *hours[SILVER_QUARANTINE.name]])
    return Work(of_silver, days, pinned.versions())


def _changes(pinned: Pinned, spec: TableSpec) -> Changes | None:
    since = pinned.covered(spec)
    if since is None:
        return None
    return changes(pinned.lake, spec, since, pinned.followed[spec.name].version)


def everything(pinned: Pinned) -> Work:
    """Every hour that silver or gold has."""
    hours = hours_in("event_time", pinned.silver.paths)
    gone = hours_in("hour", pinned.published.paths)
    hours = {**dict.fromkeys(gone, 0), **hours}
    rejected = hours_in("received_at", pinned.quarantine.paths)
    days = days_of([*hours, *rejected])
    for table in pinned.gold.values():
        days |= {epoch_day(day) for day in _days_in(table.snapshot())}
    return Work(hours, days, pinned.versions(), everything=True)


def redefined(pinned: Pinned) -> Work:
    """Every hour of silver and of the metrics, for definitions that changed."""
    metrics = pinned.gold[METRICS_HOURLY.name].snapshot()
    gone = dict.fromkeys(hours_in("hour", metrics.paths), 0)
    hours = {**gone, **hours_in("event_time", pinned.silver.paths)}
    return Work(hours, days_of(hours), {}, only_metrics=True)


def by_hand(pinned: Pinned, first: int, last: int) -> Work:
    """The epoch hours from `first` to `last` that silver or gold has, whatever is covered."""
    ranges = [(first * HOUR_US, (last + 1) * HOUR_US - 1)]
    found = {
        **hours_in("hour", pinned.published.overlapping("hour", ranges).paths),
        **hours_in("event_time", pinned.silver.overlapping("event_time", ranges).paths),
    }
    hours = {hour: rows for hour, rows in found.items() if first <= hour <= last}
    rejected = hours_in("received_at", pinned.quarantine.overlapping("received_at", ranges).paths)
    near = [hour for hour in rejected if first <= hour <= last]
    return Work(hours, days_of([*hours, *near]), {})


def completed(pinned: Pinned, work: Work) -> Work:
    """The work with every hour of its days that gold lacks: a day is made of its hours and of silver,
    and both have to be of the same version.
    """
    found = _changes(pinned, SILVER_EVENTS)
    touched = None
    if found is not None:
        touched = hours_touched(pinned.lake, SILVER_EVENTS, found, "event_time")
    if touched is None:
        ranges = [(day * 24 * HOUR_US, (day + 1) * 24 * HOUR_US - 1) for day in work.days]
        touched = {
            **hours_in("hour", pinned.published.overlapping("hour", ranges).paths),
            **hours_in("event_time", pinned.silver.overlapping("event_time", ranges).paths),
        }
    lacking = {hour: rows for hour, rows in touched.items() if hour // 24 in work.days}
    return replace(work, hours={**lacking, **work.hours})


def days_of(hours: Iterable[int]) -> frozenset[int]:
    """The epoch days of hours."""
    return frozenset(hour // 24 for hour in hours)


def epoch_day(day: date) -> int:
    """Days since 1970."""
    return day.toordinal() - _EPOCH


def date_of(day: int) -> date:
    """The date of an epoch day."""
    return date.fromordinal(day + _EPOCH)


def _days_in(snapshot: Snapshot) -> list[date]:
    days: list[date] = snapshot.actions["partition.hour_date"].to_pylist() if snapshot.paths else []
    return days
