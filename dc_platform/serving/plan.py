"""Who answers which hours of a range: gold those that it has as silver has them, silver the rest, and
the tail what has not landed. Each event is in exactly one of the three.

Gold stands for the whole hours of the range that are not stale; hours of which it has no rows have no
events. What the tail has of such an hour is added to it: it is not in silver, so not in gold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from dc_platform.lake.balance import HOUR_US
from dc_platform.lake.ranges import EVER, NEVER, range_of
from dc_platform.lake.sql import empty_select, sql_list
from dc_platform.lake.table import Snapshot
from dc_platform.serving.covered import Covered
from dc_platform.serving.hours import Hours
from dc_platform.serving.recent import Held
from dc_platform.serving.view import COLUMNS, NOTHING, SCHEMA, View, rows_at

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Plan:
    """How a range of a view is answered, from `from_us` to `to_us`. `hours` [first, last) are epoch
    hours, all but `stale` by gold; `rest` are the spans [from, to) of epoch microseconds that are left
    to silver.
    """

    view: View
    gold: Covered
    from_us: int | None
    to_us: int | None
    hours: Span
    stale: tuple[int, ...]
    rest: tuple[Span, ...]

    @cached_property
    def silver(self) -> Snapshot:
        """The files of silver that may have rows of the rest."""
        return self.view.silver.overlapping("event_time", self._ranges)

    @property
    def _ranges(self) -> list[Span]:
        return [(first, end - 1) for first, end in self.rest]

    @cached_property
    def gold_alone(self) -> bool:
        """Whether neither silver nor the tail may have an event that gold does not stand for."""
        tail = self.view.tail_sqls(NOTHING, self.from_us, self.to_us)
        # Without `silver`: to make a table of the files takes half a millisecond.
        near = self.view.silver.near("event_time", self._ranges)
        return bool(self.files) and not near.any() and not tail

    @cached_property
    def _near(self) -> Sequence[int]:
        """Which files of gold have hours of the range."""
        snapshot = self.gold.snapshot
        if not snapshot.paths:
            return ()
        days = snapshot.actions["partition.hour_date"].cast(pa.int32()).to_numpy()
        first, last = (self.hours[0] // 24, -(-self.hours[1] // 24))
        near: list[int] = np.flatnonzero((days >= first) & (days < last)).tolist()
        return near

    @cached_property
    def files(self) -> list[str]:
        """The files of gold that have hours of the range."""
        return [self.gold.snapshot.paths[n] for n in self._near]

    @property
    def gold_rows(self) -> int | None:
        """How many rows these have; None where the log does not say so."""
        return rows_at(self.gold.snapshot, self._near)

    def sql(self, select: str, columns: str, conditions: Sequence[str], held: Held) -> str:
        """`select`, which names `events`, the events of the rest and of the tail, and `hours`, the rows
        of gold with `columns`; the relation `tail` must be registered, where it is not `held`.
        `conditions` are on gold's rows, the tenant's is `$tenant`.
        """
        parts = self.view.tail_sqls(held, self.from_us, self.to_us)
        if self.silver.paths:
            rest = replace(self.view, silver=self.silver).silver_sql(held=held)
            spans = " or ".join(_within("event_time", span) for span in self.rest)
            parts = [f"select {COLUMNS} from ({rest}) where {spans}", *parts]
        if not parts:
            parts = [f"select {COLUMNS} from ({empty_select(SCHEMA)})"]
        events = f"select * from ({' union all '.join(parts)}) where tenant_id = $tenant"
        hours = self._hours_sql(columns, conditions, held.hours)
        return (
            f"with events as not materialized ({events}), hours as not materialized ({hours})"
            f" {select}"
        )

    def hours_sql(self, select: str, columns: str, held: Held) -> str:
        """`select`, which names `hours` and nothing else; for a plan of `gold_alone`."""
        hours = self._hours_sql(columns, (), held.hours)
        return f"with hours as not materialized ({hours}) {select}"

    def _hours_sql(self, columns: str, conditions: Sequence[str], held: Hours) -> str:
        files = self.files
        chosen = ["tenant_id = $tenant", *conditions]
        if not files:
            # All parameters are named, which DuckDB insists on.
            source = f"({empty_select(self.gold.spec.file_schema)})"
            return f"select {columns} from {source} where {' and '.join(chosen)}"
        first, last = self.hours
        chosen += [f"hour >= make_timestamptz({first * HOUR_US})"]
        chosen += [f"hour < make_timestamptz({last * HOUR_US})"]
        if self.stale:
            starts = ", ".join(str(hour * HOUR_US) for hour in self.stale)
            chosen.append(f"epoch_us(hour) not in ({starts})")
        where = f" where {' and '.join(chosen)}"
        parts = []
        if here := [path for path in files if path in held.files]:
            parts.append(f"select {columns} from ({held.sql(here)}){where}")
        if rest := [path for path in files if path not in held.files]:
            source = f"read_parquet({sql_list(rest)}, hive_partitioning = false)"
            parts.append(f"select {columns} from {source}{where}")
        return " union all ".join(parts)

    def shown(self) -> dict[str, Any]:
        """For people: `explain`."""
        total, silver = self.view.silver, self.silver
        return {
            "gold": {
                "version": self.gold.snapshot.version,
                "coversSilver": self.gold.covers,
                "hours": [_hour(self.hours[0]), _hour(self.hours[1])],
                "staleHours": len(self.stale),
                "filesRead": len(self.files),
                "filesSkippedByPartition": len(self.gold.snapshot.paths) - len(self.files),
            },
            "silver": silver_shown(total, silver),
            "rest": [[_instant(a), _instant(b)] for a, b in self.rest[:100]],
        }


def plan(view: View, gold: Covered | None, from_us: int | None, to_us: int | None) -> Plan | str:
    """How to answer a range with gold; else why silver and the tail answer all of it."""
    if view.hidden is not None:
        return "gold does not know what was deleted since"
    if gold is None:
        return "gold covers no version of silver that this view has"
    begin, end = (
        NEVER if from_us is None else from_us,
        EVER if to_us is None else to_us,
    )
    first, last = -(-begin // HOUR_US), end // HOUR_US
    if last <= first:
        return "the range has no whole hour"
    stale = tuple(hour for hour in gold.stale if first <= hour < last)
    if len(stale) >= last - first:
        return "silver has newer rows in every hour of the range"
    edges = [(begin, first * HOUR_US)] if begin < first * HOUR_US and from_us is not None else []
    edges += _joined(stale)
    edges += [(last * HOUR_US, end)] if last * HOUR_US < end and to_us is not None else []
    return Plan(view, gold, from_us, to_us, (first, last), stale, tuple(edges))


def explained(
    view: View, chosen: Plan | str, from_us: int | None, to_us: int | None
) -> dict[str, Any]:
    """For people: who answers a range, what is read and what is skipped."""
    if isinstance(chosen, Plan):
        gold, silver, shown = chosen.files, chosen.silver, chosen.shown()
    else:
        gold, silver = [], view.silver.overlapping("event_time", [range_of(from_us, to_us)])
        shown = {"why": chosen, "silver": silver_shown(view.silver, silver)}
    read = {"gold": gold, "silver": silver.paths, "tail": view.tail_sqls(NOTHING, from_us, to_us)}
    answered = [who for who, parts in read.items() if parts]
    return {"answeredBy": answered, **shown, "tailRows": view.tail_rows}


def silver_shown(total: Snapshot, read: Snapshot) -> dict[str, Any]:
    """Files of silver that are read and skipped, for people."""
    return {
        "version": total.version,
        "filesRead": len(read.actions),
        "filesSkippedByStatistics": len(total.actions) - len(read.actions),
        "rowsInFilesRead": read.rows,
        "bytesInFilesRead": read.bytes,
    }


def _joined(hours: Sequence[int]) -> list[Span]:
    spans: list[Span] = []
    for hour in hours:
        if spans and spans[-1][1] == hour * HOUR_US:
            spans[-1] = (spans[-1][0], (hour + 1) * HOUR_US)
        else:
            spans.append((hour * HOUR_US, (hour + 1) * HOUR_US))
    return spans


def _within(column: str, span: Span) -> str:
    return f"({column} >= make_timestamptz({span[0]}) and {column} < make_timestamptz({span[1]}))"


def _hour(hour: int) -> str | None:
    return None if abs(hour) >= EVER // HOUR_US else _instant(hour * HOUR_US)


def _instant(micros: int) -> str:
    try:
        return (_EPOCH + timedelta(microseconds=micros)).isoformat()
    except OverflowError:
        # The end of the last hour of the year 9999.
        return "10000-01-01T00:00:00+00:00"
