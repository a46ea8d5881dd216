"""The newest rows of silver, in memory: what most queries ask for lies in dozens of small files.

While an ingest hour is open its rows are in files of seconds and minutes; DuckDB takes half a
millisecond of CPU time for each of them, in every query. Here their rows are copied once into a table
of DuckDB's own, each with the number of its file. A query takes from it the files that its view has;
files that are not here it reads as ever. So this is never a second truth: files do not change.

Rows of files that compaction took away stay until they are half of the table. Then it is written anew,
and the old one goes when no query reads it any more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import duckdb

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import LANDED
from dc_platform.lake.rewrite import MERGED
from dc_platform.lake.sql import empty_select, files_sql
from dc_platform.lake.table import Snapshot

log = logging.getLogger(__name__)

COLUMNS = ", ".join(SILVER_EVENTS.file_schema.names)
# A row of 320 bytes takes 126 in a file that is compressed, and 400 here.
_GROWTH = 4
# Files of one statement: the first look at a lake has hundreds.
_TOGETHER = 32


@dataclass(frozen=True)
class Held:
    """Files that need not be read: their rows are what `sql` selects."""

    paths: Collection[str] = frozenset()
    sql: str = ""


@dataclass(eq=False)
class _Table:
    """`files`: path → number and rows."""

    name: str
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    rows: int = 0
    readers: int = 0


class RecentRows:
    """Follows the views that queries have, in a thread of its own. Thread-safe."""

    def __init__(self, instance: duckdb.DuckDBPyConnection, *, memory_mb: int) -> None:
        self._bytes = memory_mb * 2**20
        self._instance = instance
        self._lock = threading.Lock()
        self._tables = 0
        self._table = self._new()
        self._old: list[_Table] = []
        self._newest: Snapshot | None = None
        self._due = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def of(self, snapshot: Snapshot) -> Iterator[Held]:
        """What is here of a snapshot, for as long as a query runs."""
        with self._lock:
            table = self._table
            files = {path: n for path, (n, _) in table.files.items()}
            table.readers += 1
        self._follow(snapshot)
        try:
            yield _held(table.name, files, snapshot)
        finally:
            with self._lock:
                table.readers -= 1

    def close(self) -> None:
        """End the thread."""
        self._bytes = 0
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self, snapshot: Snapshot) -> None:
        if not self._bytes:
            return
        with self._lock:
            if self._newest is not None and snapshot.version <= self._newest.version:
                return
            self._newest = snapshot
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="recent", daemon=True)
                self._thread.start()
        self._due.set()

    # --- in the thread ---

    def _run(self) -> None:
        while self._bytes:
            self._due.wait()
            self._due.clear()
            snapshot = self._newest
            if snapshot is None or not self._bytes:
                continue
            try:
                with self._instance.cursor() as cursor:
                    self._take(cursor, snapshot)
            except duckdb.Error as error:
                # A file that vacuum took meanwhile, or no memory: queries read the files.
                log.warning("recent rows: %s", error)

    def _take(self, cursor: duckdb.DuckDBPyConnection, snapshot: Snapshot) -> None:
        wanted = young(snapshot, self._bytes)
        kept = {path: found for path, found in self._table.files.items() if path in wanted}
        live = sum(rows for _, rows in kept.values())
        if self._table.rows > 2 * live:
            self._renew(cursor, kept)
        missing = [path for path in wanted if path not in self._table.files]
        lacking = snapshot.lacking(SILVER_EVENTS)
        for start in range(0, len(missing), _TOGETHER):
            self._add(cursor, missing[start : start + _TOGETHER], lacking, wanted)
        self._drop_old(cursor)

    def _renew(
        self, cursor: duckdb.DuckDBPyConnection, kept: Mapping[str, tuple[int, int]]
    ) -> None:
        """Another table with the rows of the files that are still wanted."""
        new = self._new()
        if kept:
            condition = _among("file", [number for number, _ in kept.values()])
            rows = f"select * from {self._table.name} where {condition}"
            cursor.execute(f"insert into {new.name} {rows}")
        new.files, new.rows = dict(kept), sum(rows for _, rows in kept.values())
        with self._lock:
            self._old.append(self._table)
            self._table = new

    def _add(
        self,
        cursor: duckdb.DuckDBPyConnection,
        paths: Sequence[str],
        lacking: Collection[str],
        rows_of: Mapping[str, int],
    ) -> None:
        table = self._table
        first = 1 + max((number for number, _ in table.files.values()), default=0)
        numbers = {path: first + n for n, path in enumerate(paths)}
        parts = [
            f"select {number}, {COLUMNS} from ({_file_sql(path, lacking)})"
            for path, number in numbers.items()
        ]
        cursor.execute(f"insert into {table.name} {' union all '.join(parts)}")
        with self._lock:
            table.files = {**table.files, **{p: (n, rows_of[p]) for p, n in numbers.items()}}
            table.rows += sum(rows_of[path] for path in paths)

    def _new(self) -> _Table:
        self._tables += 1
        name = f"memory.recent_{self._tables}"
        empty = empty_select(SILVER_EVENTS.file_schema)
        self._instance.cursor().execute(
            f"create table {name} as select 0 as file, * from ({empty})"
        )
        return _Table(name)

    def _drop_old(self, cursor: duckdb.DuckDBPyConnection) -> None:
        with self._lock:
            gone = [table for table in self._old if not table.readers]
            self._old = [table for table in self._old if table.readers]
        for table in gone:
            cursor.execute(f"drop table {table.name}")


def young(snapshot: Snapshot, most_bytes: int) -> dict[str, int]:
    """Path → rows of the files of open ingest hours, the oldest first: as many of the newest as
    `most_bytes` of memory hold.
    """
    columns = (snapshot.actions[n].to_pylist() for n in ("modification_time", "size_bytes"))
    rows = snapshot.actions["num_records"].to_pylist()
    files = sorted(zip(*columns, snapshot.paths, rows, strict=True), reverse=True)
    chosen: list[tuple[str, int]] = []
    for _, size, path, count in files:
        if not PurePosixPath(path).name.startswith((LANDED, MERGED)):
            continue
        most_bytes -= size * _GROWTH
        if most_bytes < 0 or count is None:
            break
        chosen.append((path, count))
    return dict(reversed(chosen))


def _file_sql(path: str, lacking: Collection[str]) -> str:
    option = "hive_partitioning = false"
    return files_sql(SILVER_EVENTS, [path], lacking, option, columns=COLUMNS)


def _held(table: str, files: Mapping[str, int], snapshot: Snapshot) -> Held:
    live = {path: files[path] for path in snapshot.paths if path in files}
    if not live:
        return Held()
    return Held(
        live.keys(), f"select {COLUMNS} from {table} where {_among('file', list(live.values()))}"
    )


def _among(column: str, numbers: Sequence[int]) -> str:
    """A condition on ranges: numbers follow each other but for the files that were taken away."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return "(" + " or ".join(f"{column} between {low} and {high}" for low, high in ranges) + ")"
