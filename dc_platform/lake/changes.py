"""What commits have put into a table and taken out of it, as its log says.

Files that compaction merged are neither: `dataChange: false`. A file may be gone from the disk two
hours after it was replaced; then the merged file that has its rows stands for it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb

from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.balance import hour_sql
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import sql_list

# DuckDB opens all files of a query before it reads.
_FILES_AT_ONCE = 1000


@dataclass
class Changes:
    """Files with rows that came or went, paths relative to the table. `merged`: file → the file that
    has its rows since.
    """

    touched: set[str] = field(default_factory=set)
    merged: dict[str, str] = field(default_factory=dict)


def changes(lake: Lake, spec: TableSpec, since: int, until: int) -> Changes | None:
    """What the commits after version `since` up to `until` did; None when the log no longer has all of
    them.
    """
    found = Changes()
    for version in range(since + 1, until + 1):
        content = lake.mapped(spec, f"_delta_log/{version:020}.json")
        if content is None:
            return None
        _add(found, [json.loads(line) for line in bytes(content).splitlines() if line.strip()])
    return found


def _add(found: Changes, actions: list[dict[str, Any]]) -> None:
    files = [(kind, a[kind]) for a in actions for kind in ("add", "remove") if kind in a]
    found.touched |= {file["path"] for _, file in files if file["dataChange"]}
    merged_into = [f["path"] for kind, f in files if kind == "add" and not f["dataChange"]]
    for kind, file in files:
        if kind == "remove" and not file["dataChange"] and len(merged_into) == 1:
            found.merged[file["path"]] = merged_into[0]


def hours_touched(
    lake: Lake, spec: TableSpec, found: Changes, column: str
) -> dict[int, int] | None:
    """Epoch hours of `column` in the files, with their rows; None when one of them is gone without a
    successor.
    """
    paths = set()
    for path in found.touched:
        where: str | None = path
        while where is not None and not lake.has(spec, where):
            where = found.merged.get(where)
        if where is None:
            return None
        paths.add(where)
    return hours_in(column, (f"{lake.uri_of(spec)}/{path}" for path in paths))


def hours_in(column: str, paths: Iterable[str]) -> dict[int, int]:
    """The epoch hours of a column of files, with their rows; only that column is read."""
    hours: Counter[int] = Counter()
    with scratch() as connection:
        for files in _pieces(sorted(paths)):
            try:
                rows = connection.execute(
                    f"select {hour_sql(column)}, count(*) from read_parquet({sql_list(files)},"
                    " hive_partitioning = false) group by 1"
                ).fetchall()
            except duckdb.IOException as error:
                raise StoreUnavailableError(f"reading {column} failed: {error}") from error
            hours.update(dict(rows))
    return hours


def _pieces(files: list[str]) -> Iterator[list[str]]:
    return (files[at : at + _FILES_AT_ONCE] for at in range(0, len(files), _FILES_AT_ONCE))
