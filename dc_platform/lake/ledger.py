"""`ops.ledger`: the balance of each source and hour, kept up to date.

An hour is made anew when bronze, silver, quarantine or the acks have files with rows of it that they
did not have at the update before, or lack some that they had, and as long as it has events in flight
or does not balance. Files that compaction merged are no such ones. So a row that somebody takes out of
silver is missed at the next update; hours that nobody touched cost a look at the list of files. All
hours that an update touches are replaced in one exact commit, which names what they come from.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.ops_tables import ACKS, LEDGER
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.errors import CommitConflictError
from dc_platform.lake.balance import HOUR_US, Pinned, balance, hour_sql, pin
from dc_platform.lake.ledger_inputs import Inputs, Span, forget_others, keep, news, recall, spans
from dc_platform.lake.parquet import DataFile, read_batches, write_file
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot, sql_list

_RETRIES = 5
_VERSIONS = "dcp.versions"
_INPUTS = "dcp.inputs"
_SECONDS = "dcp.seconds"
# An update costs 1.6 CPU seconds per million events of the hours that it makes anew: with 50,000
# events a second the current hour ends up at five minutes. So it is done in a 20th of the time.
_PAUSE = 20
# How far back the commit before is looked for; without it all is made anew.
_HISTORY = 50
# Hours that no clock says.
_EVER = 1 << 30
# A row of these changes the hours that it stands in.
_WATCHED: tuple[tuple[TableSpec, str], ...] = (
    (BRONZE_EVENTS, "received_at"),
    (SILVER_EVENTS, "received_at"),
    (SILVER_QUARANTINE, "received_at"),
    (ACKS, "hour"),
)
_NAMES = LEDGER.file_schema.names


@dataclass(frozen=True)
class Updated:
    """What an update did. `hours` is None when all were made anew."""

    hours: int | None
    rows: int
    version: int


def update_ledger(lake: Lake, *, frozen_before: datetime | None = None) -> Updated:
    """Bring `ops.ledger` up to date; raises CommitConflictError after many tries.

    Hours before `frozen_before` stay as they are: their acknowledgements are forgotten.
    """
    lake.ensure(LEDGER)
    floor = -(1 << 40) if frozen_before is None else _hour(frozen_before)
    begun = time.monotonic()
    for _ in range(_RETRIES):
        table = LakeTable(lake, LEDGER)
        before = _last(table)
        pinned = pin(lake)
        if json.loads(before.get(_VERSIONS, "null")) == pinned.versions:
            return Updated(0, 0, table.version)
        hours = _touched(lake, table, pinned, before.get(_INPUTS, ""))
        if hours is not None:
            hours = [hour for hour in hours if hour >= floor]
        rows = with_defaults(balance(pinned, hours), datetime.now(UTC))
        rows = rows.filter(pa.array(_hours_of(rows) >= floor))
        files = {spec.name: spans(pinned.of(spec), column) for spec, column in _WATCHED}
        name = keep(lake, Inputs(_open_hours(rows), files))
        metadata = {
            _VERSIONS: json.dumps(pinned.versions),
            _INPUTS: name,
            _SECONDS: f"{time.monotonic() - begun:.1f}",
        }
        try:
            version = _replace(lake, table, rows, hours, floor, metadata)
        except CommitConflictError:
            continue
        forget_others(lake, name, before.get(_INPUTS, ""))
        return Updated(None if hours is None else len(hours), len(rows), version)
    raise CommitConflictError("ops.ledger: too many conflicting commits; trying again later")


def is_due(lake: Lake, now: datetime) -> bool:
    """Whether the update before was long enough ago, for what it took."""
    if not lake.exists(LEDGER):
        return True
    for entry in LakeTable(lake, LEDGER).history(_HISTORY):
        if _SECONDS in entry:
            ago = now.timestamp() - entry["timestamp"] / 1000
            return not 0 <= ago < _PAUSE * float(entry[_SECONDS])
    return True


def updated_at(lake: Lake) -> datetime | None:
    """When the newest update was committed; one that has nothing to do commits nothing."""
    if not lake.exists(LEDGER):
        return None
    entry = _last(LakeTable(lake, LEDGER))
    return datetime.fromtimestamp(entry["timestamp"] / 1000, UTC) if entry else None


def ledger_rows(lake: Lake, since: datetime) -> pa.Table:
    """The rows of hours since then."""
    if not lake.exists(LEDGER):
        return LEDGER.columns.empty_table()
    snapshot = LakeTable(lake, LEDGER).snapshot()
    near = snapshot.overlapping("hour", [(_hour(since) * HOUR_US, 1 << 62)])
    rows = _read(near.paths)
    return rows.filter(pa.array(_hours_of(rows) >= _hour(since)))


def with_defaults(rows: pa.Table, at: datetime) -> pa.Table:
    """A balance with the columns of the table's files."""
    times = pa.array([at] * len(rows), LEDGER.columns.field("processed_at").type)
    return rows.append_column("processed_at", times).select(_NAMES).cast(LEDGER.file_schema)


def _hour(at: datetime) -> int:
    return int(at.timestamp() // 3600)


def _hours_of(rows: pa.Table) -> npt.NDArray[np.int64]:
    micros: npt.NDArray[np.int64] = rows["hour"].cast(pa.int64()).to_numpy()
    return micros // HOUR_US


def _last(table: LakeTable) -> dict[str, Any]:
    """The newest commit of an update."""
    return next((entry for entry in table.history(_HISTORY) if _VERSIONS in entry), {})


def _touched(lake: Lake, table: LakeTable, pinned: Pinned, inputs: str) -> list[int] | None:
    """Epoch hours that may balance otherwise than the table says; None for all of them."""
    before = recall(lake, inputs)
    if before is None:
        return None
    hours = set(before.open_hours)
    for spec, column in _WATCHED:
        found = news(lake, spec, pinned.of(spec), before.files.get(spec.name, {}))
        hours |= _hours_in(column, found.paths)
        if found.gone:
            hours |= _hours_near(found.gone, table.snapshot())
    return sorted(hours)


def _open_hours(rows: pa.Table) -> list[int]:
    """Hours that may change although nobody touches them: by the border, or by rows of other hours.
    Of those that only lack what Kafka deleted nothing comes any more.
    """
    named = pc.and_(pc.is_valid(rows["examples"]), pc.equal(rows["gap"], 0))
    counted = pc.or_(pc.not_equal(rows["missing"], 0), pc.not_equal(rows["in_flight"], 0))
    return sorted(set(_hours_of(rows.filter(pc.or_(counted, named))).tolist()))


def _hours_in(column: str, paths: Iterable[str]) -> set[int]:
    """The hours of the rows of files."""
    files = sorted(paths)
    if not files:
        return set()
    with scratch() as connection:
        found = connection.execute(
            f"select distinct {hour_sql(column)} from read_parquet({sql_list(files)},"
            " hive_partitioning = false)"
        ).fetchall()
    return {hour for (hour,) in found}


def _hours_near(gone: Iterable[Span], known: Snapshot) -> set[int]:
    """Hours of the ledger in which files that are gone, perhaps from the disk, too, had rows."""
    ranges = {
        (-_EVER if low is None else low, _EVER if high is None else high) for low, high in gone
    }
    near = known.overlapping("hour", [(a * HOUR_US, (b + 1) * HOUR_US - 1) for a, b in ranges])
    hours = np.unique(_hours_of(_read(near.paths, ("hour",))))
    return {hour for hour in hours.tolist() if any(a <= hour <= b for a, b in ranges)}


def _replace(
    lake: Lake,
    table: LakeTable,
    rows: pa.Table,
    hours: Sequence[int] | None,
    floor: int,
    metadata: dict[str, str],
) -> int:
    """Put the rows in place of those of their hours; a day of the table is one file."""
    snapshot = table.snapshot()
    old = _read(snapshot.paths if hours is None else _of_days(snapshot, _days(hours)))
    old_hours = _hours_of(old)
    kept = old_hours < floor if hours is None else ~np.isin(old_hours, np.array(hours, np.int64))
    every = pa.concat_tables([old.filter(pa.array(kept)), rows])
    day_of = _hours_of(every) // 24
    days = {*_all_days(snapshot), *day_of.tolist()} if hours is None else _days(hours)
    partitions: dict[date, list[DataFile]] = {}
    for day in days:
        of_day = every.filter(pa.array(day_of == day))
        at = _date(day)
        partitions[at] = [write_file(lake, LEDGER, of_day, partition=at)] if len(of_day) else []
    return table.replace_all(partitions, metadata=metadata)


def _days(hours: Iterable[int]) -> set[int]:
    return {hour // 24 for hour in hours}


def _date(day: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + day)


def _all_days(snapshot: Snapshot) -> set[int]:
    days = snapshot.actions["partition.hour_date"].to_pylist() if snapshot.paths else []
    return {day.toordinal() - date(1970, 1, 1).toordinal() for day in days}


def _of_days(snapshot: Snapshot, days: set[int]) -> list[str]:
    if not snapshot.paths:
        return []
    found = snapshot.actions["partition.hour_date"].to_pylist()
    wanted = {_date(day) for day in days}
    return [path for path, day in zip(snapshot.paths, found, strict=True) if day in wanted]


def _read(paths: Iterable[str], names: Sequence[str] = _NAMES) -> pa.Table:
    pieces = [piece for path in paths for piece in read_batches(path, names)]
    return pa.Table.from_batches(pieces, pa.schema([LEDGER.file_schema.field(n) for n in names]))
