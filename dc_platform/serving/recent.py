"""The newest rows, in a table in memory: what most queries ask for lies in dozens of small files.

While an ingest hour is open its rows are in files of seconds and minutes; DuckDB takes half a
millisecond of CPU time for each of them, in every query. Here their rows are copied once into a table
of DuckDB's own, each with the number of its file. A query takes from it the files that its view has;
files that are not here it reads as ever. So this is never a second truth: files do not change. Chunks
of the tail, which do not change either, are copied, too: an Arrow table takes twice as long.

The table is compressed, as DuckDB's files are: it takes a sixth of the memory, and what is counted by
type is a number there and no text.

Rows of files and chunks that went away stay until they are half of the table. Then it is written anew,
and the old one goes when no query reads it any more.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import LANDED, whole
from dc_platform.lake.rewrite import MERGED
from dc_platform.lake.sql import empty_select, files_sql
from dc_platform.lake.table import Snapshot
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.hours import NO_HOURS, HeldHours, Hours, copied

if TYPE_CHECKING:
    from dc_platform.serving.view import View

log = logging.getLogger(__name__)

COLUMNS = ", ".join(SILVER_EVENTS.file_schema.names)
# A row of 320 bytes takes 65 in a file that compaction wrote, 80 here, and 400 until it is compressed.
_GROWTH = 2
# Where the rows are. Smaller groups are passed over sooner, 16,384 rows are eight vectors.
_ATTACH = "attach ':memory:' as recent (row_group_size 16384, compress true)"
# Files of one statement: the first look at a lake has hundreds.
_TOGETHER = 32
# A tail of more rows is asked as the Arrow table that it is.
TAIL_ROWS = 100_000
# Seconds of a pause after what failed; and of the work after which a pause gets no longer.
_PAUSE = 1.0
_MOST_WORK = 1 / 3
# So many dead rows are no reason to write the table anew.
_FEW_ROWS = 10_000


@dataclass(frozen=True)
class Held:
    """Rows that are in a table in memory, of files and of chunks, by their numbers there; `tail` says
    whether these are all chunks of a view that are in memory.
    """

    table: str = ""
    paths: Mapping[str, int] = field(default_factory=dict)
    chunks: Mapping[Chunk, int] = field(default_factory=dict)
    tail: bool = False
    hours: Hours = NO_HOURS

    def sqls(self, paths: Iterable[str], chunks: Iterable[Chunk] = ()) -> list[str]:
        """At most one SELECT: the rows of those of the files and chunks that are here."""
        numbers = [self.paths[path] for path in paths if path in self.paths]
        numbers += [self.chunks[chunk] for chunk in chunks if chunk in self.chunks]
        if not numbers:
            return []
        return [f"select {COLUMNS} from {self.table} where {_among('file', numbers)}"]


@dataclass(eq=False)
class _Table:
    """`files` and `chunks`: number and rows of each."""

    name: str
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    chunks: weakref.WeakKeyDictionary[Chunk, tuple[int, int]] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    rows: int = 0
    used: int = 0
    readers: int = 0


class RecentRows:
    """Follows the views that queries have, in a thread of its own and a `share` of a core at most.
    Thread-safe.
    """

    def __init__(
        self, instance: duckdb.DuckDBPyConnection, *, memory_mb: int, share: float
    ) -> None:
        self._bytes = memory_mb * 2**20
        # A pause after each copying, so many times as long.
        self._rest = 1 / share - 1
        self.instance = instance
        # Of who writes into the attached database: no checkpoint passes while others do.
        self._writing = threading.Lock()
        # Why the instance is of no use any more.
        self.ruined: duckdb.Error | None = None
        self._hours = HeldHours(instance, self._writing, self._ruin)
        self._lock = threading.Lock()
        instance.execute(_ATTACH)
        self._tables = 0
        self._table = self._new()
        self._old: list[_Table] = []
        # The view to follow; not longer than that, for its memory goes with its last query.
        self._next: View | None = None
        self._seen: weakref.ref[View] | None = None
        self._version = -1
        # A pool: its thread ends with this, or with the interpreter, and never in the midst of a query.
        self._thread = ThreadPoolExecutor(1, "recent")
        self._busy = False
        self._closed = threading.Event()

    @contextmanager
    def of(self, view: View, gold: Snapshot | None = None) -> Iterator[Held]:
        """What is here of a view, and of a version of gold, for as long as a query runs."""
        with self._lock:
            table = self._table
            files = table.files
            table.readers += 1
        try:
            self._follow(view)
            with self._hours.of(gold) as hours:
                yield replace(_held(table, files, view), hours=hours)
        finally:
            with self._lock:
                table.readers -= 1

    def close(self) -> None:
        """End the thread."""
        self._bytes = 0
        self._closed.set()
        self._thread.shutdown()
        self._hours.close()

    def _follow(self, view: View) -> None:
        if not self._bytes or (self._seen is not None and self._seen() is view):
            return
        with self._lock:
            if view.silver.version < self._version:
                return
            self._version = view.silver.version
            self._seen, self._next = weakref.ref(view), view
            if not self._busy:
                try:
                    self._thread.submit(self._run)
                except RuntimeError as error:
                    # It has ended, with an instance that is no more, or there is no memory for it.
                    log.warning("recent rows: %s", error)
                    self._seen = self._next = None
                    return
                self._busy = True

    # --- in the thread ---

    def _run(self) -> None:
        """Follow until there is no newer view."""
        try:
            while self._follow_next():
                pass
        except BaseException:
            # The next view begins anew.
            self._busy = False
            raise

    def _follow_next(self) -> bool:
        """Follow the newest view; False where there is none."""
        with self._lock:
            view, self._next = self._next, None
            if view is None or not self._bytes:
                self._busy = False
                return False
        begun = time.monotonic()
        take = partial(self._take, view=view)
        done = copied(self.instance, "recent rows", take, self._drop_old, self._ruin)
        del view, take
        spent = time.monotonic() - begun
        self._closed.wait(self._rest * min(_MOST_WORK, spent) if done else _PAUSE)
        if not done:
            # The next query has it tried again.
            self._seen = None
        return True

    def _ruin(self, error: duckdb.Error) -> None:
        self.ruined = error

    def _take(self, cursor: duckdb.DuckDBPyConnection, view: View) -> None:
        wanted = young(view.silver, self._bytes)
        chunks = _in_memory(view)
        if sum(chunk.rows for chunk in chunks) > TAIL_ROWS:
            chunks = []
        table = self._table
        before = (table, table.used)
        files_kept = {path: found for path, found in table.files.items() if path in wanted}
        chunks_kept = {chunk: table.chunks[chunk] for chunk in chunks if chunk in table.chunks}
        live = sum(rows for _, rows in (*files_kept.values(), *chunks_kept.values()))
        if table.rows > 2 * live + _FEW_ROWS:
            self._renew(cursor, files_kept, chunks_kept)
        for chunk in chunks:
            if chunk not in self._table.chunks:
                self._add_chunk(cursor, chunk)
        missing = [path for path in wanted if path not in self._table.files]
        lacking = view.silver.lacking(SILVER_EVENTS)
        for start in range(0, len(missing), _TOGETHER):
            self._add(cursor, missing[start : start + _TOGETHER], lacking, wanted)
            self._write(cursor, "checkpoint recent")
        if (self._table, self._table.used) != before:
            self._write(cursor, "checkpoint recent")

    def _renew(
        self,
        cursor: duckdb.DuckDBPyConnection,
        files: Mapping[str, tuple[int, int]],
        chunks: Mapping[Chunk, tuple[int, int]],
    ) -> None:
        """Another table with the rows that are still wanted."""
        gone = new = self._new()
        kept = [*files.values(), *chunks.values()]
        try:
            if kept:
                condition = _among("file", (number for number, _ in kept))
                rows = f"select * from {self._table.name} where {condition}"
                self._write(cursor, f"insert into {new.name} {rows}")
            new.files = dict(files)
            new.chunks.update(chunks)
            new.rows, new.used = sum(rows for _, rows in kept), self._table.used
            with self._lock:
                gone, self._table = self._table, new
        finally:
            with self._lock:
                self._old.append(gone)

    def _add_chunk(self, cursor: duckdb.DuckDBPyConnection, chunk: Chunk) -> None:
        table, [number] = self._table, self._numbers(1)
        assert chunk.table is not None
        rows: pa.Table = whole(chunk.table, SILVER_EVENTS.file_schema)
        cursor.register("chunk", rows)
        self._write(cursor, f"insert into {table.name} select {number}, {COLUMNS} from chunk")
        cursor.unregister("chunk")
        with self._lock:
            table.chunks[chunk] = (number, chunk.rows)
            table.rows += chunk.rows

    def _add(
        self,
        cursor: duckdb.DuckDBPyConnection,
        paths: Sequence[str],
        lacking: Collection[str],
        rows_of: Mapping[str, int],
    ) -> None:
        table = self._table
        numbers = dict(zip(paths, self._numbers(len(paths)), strict=True))
        parts = [
            f"select {number}, {COLUMNS} from ({_file_sql(path, lacking)})"
            for path, number in numbers.items()
        ]
        self._write(cursor, f"insert into {table.name} {' union all '.join(parts)}")
        with self._lock:
            table.files = {**table.files, **{p: (n, rows_of[p]) for p, n in numbers.items()}}
            table.rows += sum(rows_of[path] for path in paths)

    def _numbers(self, count: int) -> range:
        """Numbers that no rows have; nor get others, when these are there although writing failed."""
        with self._lock:
            self._table.used += count
            return range(self._table.used - count + 1, self._table.used + 1)

    def _write(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
        with self._writing:
            cursor.execute(sql)

    def _new(self) -> _Table:
        self._tables += 1
        name = f"recent.rows_{self._tables}"
        empty = empty_select(SILVER_EVENTS.file_schema)
        with self.instance.cursor() as cursor:
            self._write(cursor, f"create table {name} as select 0 as file, * from ({empty})")
        return _Table(name)

    def _drop_old(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Tables that no query reads any more; one that stays is tried again with the next view."""
        with self._lock:
            gone = [table for table in self._old if not table.readers]
        for table in gone:
            self._write(cursor, f"drop table {table.name}")
            with self._lock:
                self._old.remove(table)


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


def _held(table: _Table, files: Mapping[str, tuple[int, int]], view: View) -> Held:
    live = {path: number for path, (number, _) in files.items() if path in view.paths}
    chunks = _in_memory(view)
    known = {c: found[0] for c in chunks if (found := table.chunks.get(c)) is not None}
    return Held(table.name, live, known, tail=bool(chunks) and len(known) == len(chunks))


def _in_memory(view: View) -> list[Chunk]:
    return [chunk for chunk in view.chunks if chunk.table is not None]


def _among(column: str, numbers: Iterable[int]) -> str:
    """A condition on ranges: numbers follow each other but for the files that were taken away."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return "(" + " or ".join(f"{column} between {low} and {high}" for low, high in ranges) + ")"
