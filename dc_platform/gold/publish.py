"""Publishing: the rows of touched hours take the place of those that gold has, a commit per table.

A day of gold is one file. A day whose rows are what they were, but for the version that they were built
from, is left alone; a table of which no day differs gets a commit without files, which only says what
is covered, or none when nothing new is covered. Each commit is a compare-and-swap from the version that
was pinned: readers see a whole hour of before or of after, and of two runs one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.gold import GoldSpec
from dc_platform.gold.build import of_partitions
from dc_platform.gold.pending import Pinned, Work, date_of
from dc_platform.lake.balance import HOUR_US
from dc_platform.lake.parquet import KEPT_GROUP_ROWS, DataFile, read_batches, whole, write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.points import Point, Reached, unarmed

COMMIT = "dcp.gold"
_VERSION = "silver_version"


@dataclass(frozen=True)
class Published:
    """What a table got. `days`: epoch day → rows that it has now; only days that changed. `version` is
    None when nothing was committed.
    """

    days: Mapping[int, int]
    rows: int
    bytes: int
    version: int | None


def publish(
    pinned: Pinned,
    spec: GoldSpec,
    built: pa.Table,
    work: Work,
    figures: Mapping[str, object],
    reached: Reached = unarmed,
) -> Published:
    """Put `built` in place of the rows of the touched hours and days; raises CommitConflictError when
    another run was quicker.
    """
    table = pinned.gold[spec.name]
    changed = dict(_changed_days(spec, table.snapshot(), built, work))
    files: dict[date, list[DataFile]] = {}
    try:
        for day, rows in changed.items():
            files[date_of(day)] = [_write(pinned.lake, spec, rows, day)] if len(rows) else []
        reached(Point.GOLD_WRITTEN)
        version = _commit(table, files, work, figures)
    except Exception:
        _forget(pinned.lake, table, files)
        raise
    reached(Point.GOLD_COMMITTED)
    written = [file for of_day in files.values() for file in of_day]
    return Published(
        days={day: len(rows) for day, rows in changed.items()},
        rows=sum(file.rows for file in written),
        bytes=sum(file.size for file in written),
        version=version,
    )


def _commit(
    table: LakeTable,
    files: Mapping[date, list[DataFile]],
    work: Work,
    figures: Mapping[str, object],
) -> int | None:
    known = {app: table.txn(app) for app in work.covers}
    txns = {a: at for a, at in work.covers.items() if (v := known[a]) is None or v < at}
    if not files and not txns:
        return None
    return table.replace_all(files, metadata={COMMIT: json.dumps(figures)}, txns=txns)


def _forget(lake: Lake, table: LakeTable, files: Mapping[date, list[DataFile]]) -> None:
    """Remove files of a commit that was not made; one that nobody knows of may have been."""
    table.refresh()
    live = set(table.snapshot().actions["path"].to_pylist())
    for file in (file for of_day in files.values() for file in of_day):
        if file.path not in live:
            lake.remove(table.spec, file.path)


def _write(lake: Lake, spec: GoldSpec, rows: pa.Table, day: int) -> DataFile:
    ordered = _sorted(rows, spec.order or spec.grain)
    return write_file(lake, spec, ordered, partition=date_of(day), group_rows=KEPT_GROUP_ROWS)


def _sorted(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    return rows.sort_by([(name, "ascending") for name in names])


def _changed_days(
    spec: GoldSpec, snapshot: Snapshot, built: pa.Table, work: Work
) -> Iterator[tuple[int, pa.Table]]:
    """The touched days whose rows differ, with all of their rows."""
    old = _read(spec, of_partitions(snapshot, work))
    touched = _touched(spec, old, work)
    new_of, old_of = _by_day(built), _by_day(_sorted(old.filter(touched), spec.grain))
    kept_of = _by_day(old.filter(pc.invert(touched)))
    nothing = spec.columns.empty_table()
    for day in sorted(work.days):
        new, before = new_of.get(day, nothing), old_of.get(day, nothing)
        if _content(new) != _content(before):
            yield day, pa.concat_tables([kept_of.get(day, nothing), new])


def _content(rows: pa.Table) -> pa.Table:
    """What a row says, whatever version it was built from. Both are in the order of the grain."""
    return rows.drop_columns([_VERSION]).combine_chunks()


def _touched(spec: GoldSpec, rows: pa.Table, work: Work) -> pa.Array:
    if not spec.hourly:
        return pa.repeat(True, len(rows))
    hours = pa.array(sorted(work.hours), pa.int64())
    micros = rows["hour"].cast(pa.int64()).to_numpy()
    return pc.is_in(pa.array(micros // HOUR_US), value_set=hours)


def _by_day(rows: pa.Table) -> dict[int, pa.Table]:
    """The rows of each epoch day, in the order that they have."""
    if not len(rows):
        return {}
    days = rows["hour_date"].cast(pa.int32()).to_numpy()
    order = np.argsort(days, kind="stable")
    ordered = rows.take(pa.array(order))
    found, begins = np.unique(days[order], return_index=True)
    ends = [*begins[1:].tolist(), len(rows)]
    return {
        day: ordered.slice(begin, end - begin)
        for day, begin, end in zip(found.tolist(), begins.tolist(), ends, strict=True)
    }


def _read(spec: GoldSpec, snapshot: Snapshot) -> pa.Table:
    """The rows of a snapshot."""
    if not snapshot.paths:
        return spec.columns.empty_table()
    pieces = []
    days = snapshot.actions["partition.hour_date"].to_pylist()
    for path, day in zip(snapshot.paths, days, strict=True):
        for piece in read_batches(path, spec.file_schema.names):
            rows = whole(pa.Table.from_batches([piece]), spec.file_schema)
            dates = pa.repeat(pa.scalar(day, pa.date32()), len(rows))
            pieces.append(rows.append_column("hour_date", dates).select(spec.columns.names))
    return pa.concat_tables(pieces) if pieces else spec.columns.empty_table()
