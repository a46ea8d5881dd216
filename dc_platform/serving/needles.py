"""The rows that can have one value of a payload field, in place of the files that they lie in.

Where a query says that a field of DCP_INDEXED_FIELDS is a value (or one of a few), the indexes beside
silver's files (`lake/payload_index.py`) tell the rows. These alone are read, a row group up to the row,
and stand as an Arrow table where the files would be scanned. The query's filters are evaluated on them
as on any others, so an index that tells of too many rows does no harm; a file without one, the rows in
memory and the tail are looked through as ever.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import whole
from dc_platform.lake.payload_index import STAY, U64, Field, key_sql, read_index
from dc_platform.lake.rewrite import group_batch_rows
from dc_platform.lake.store import Lake
from dc_platform.lake.table import Snapshot
from dc_platform.serving.conditions import Equality
from dc_platform.serving.recent import Held
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.view import Apart, View

log = logging.getLogger(__name__)

SCHEMA = SILVER_EVENTS.file_schema
Span = tuple[int | None, int | None]
# The name that the rows have in SQL.
_RELATION = "needles"
# Of more the files are scanned: a third of all row groups of 100,000,000 events, read one by one, take
# as long. Bytes as the rows are in memory, beside DuckDB's.
_MOST_ROWS = 200_000
_MOST_BYTES = 256 * 2**20
_MOST_VALUES = 100
# Rows are decoded up to the one that is wanted, in pieces of so many: half a row group on average.
_PIECE_ROWS = 2048
# Footers that are kept, in bytes as they lie in the files: eight times as much in memory.
_FOOTER_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Found:
    """Absolute path of a file with an index → the rows that can match. `lacking`: files without one."""

    rows: Mapping[str, U64]
    lacking: int

    @property
    def usable(self) -> bool:
        """Whether the rows are read; else all files are scanned."""
        return bool(self.rows) and self._count <= _MOST_ROWS

    @property
    def _count(self) -> int:
        return sum(map(len, self.rows.values()))

    def shown(self) -> dict[str, Any]:
        """For people: `explain`."""
        shown = {"files": len(self.rows), "filesWithout": self.lacking, "rows": self._count}
        return {"used": self.usable, **shown}


@dataclass(frozen=True)
class _Footer:
    metadata: pq.FileMetaData
    columns: frozenset[str]
    # The number of each row group's first row.
    starts: U64


class Needles:
    """Looks into the indexes of a lake's silver. Thread-safe."""

    def __init__(self, lake: Lake, *, threads: int, seconds: float) -> None:
        self._lake = lake
        self._seconds = seconds
        self._lock = threading.Lock()
        # The newest of silver that a query had.
        self._version = -1
        self._indexes: dict[str, dict[str, Field]] = {}
        self._footers: dict[str, _Footer] = {}
        self._threads = ThreadPoolExecutor(threads, "needles")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def narrow(
        self,
        cursor: duckdb.DuckDBPyConnection,
        view: View,
        held: Held,
        span: Span,
        equalities: Sequence[Equality],
        sql: str,
        until: float | None = None,
    ) -> View:
        """The view, with those files apart of which the cursor now has the rows that can match. Columns
        that `sql` does not name are null there. Raises QueryTimeoutError after as long as a query may
        take, or at `until` (`time.monotonic`).
        """
        found = self.find(cursor, view, held, span, equalities)
        if not found.usable:
            return view
        try:
            table = self._read(found, sql, until)
        except (OSError, pa.ArrowException) as error:
            # A file that is gone: DuckDB says so, or finds that it is not needed.
            log.warning("needles: %s", error)
            return view
        if table is None:
            return view
        cursor.register(_RELATION, table)
        return replace(view, apart=Apart(found.rows.keys(), _RELATION))

    def find(
        self,
        cursor: duckdb.DuckDBPyConnection,
        view: View,
        held: Held,
        span: Span,
        equalities: Sequence[Equality],
    ) -> Found:
        """The rows that can meet all of the conditions, in the files that are not `held` and may have a
        row of the `span`, [from, to) in epoch microseconds.
        """
        self._forget(view.silver)
        wanted = [
            (each.path, _keys(cursor, each.values))
            for each in equalities
            if len(each.values) <= _MOST_VALUES
        ]
        paths = [path for path in view.near(*span) if path not in held.paths]
        rows: dict[str, U64] = {}
        for path in paths if wanted else ():
            found = _rows_of(self._index(path), wanted)
            if found is not None:
                rows[path] = found
        return Found(rows, len(paths) - len(rows))

    def _forget(self, silver: Snapshot) -> None:
        """Files that went away: what is mapped takes room on the disk, and keeps what was deleted."""
        with self._lock:
            if silver.version <= self._version:
                return
            self._version = silver.version
            live = set(silver.paths)
            self._indexes = {p: found for p, found in self._indexes.items() if p in live}
            self._footers = {p: found for p, found in self._footers.items() if p in live}

    def _read(self, found: Found, sql: str, until: float | None) -> pa.Table | None:
        """The rows; None where they are too large."""
        names = [name for name in SCHEMA.names if re.search(rf"\b{name}\b", sql)]
        room = _Room(_MOST_BYTES, self._seconds, until)
        chosen = [(path, rows) for path, rows in found.rows.items() if len(rows)]

        def read(path: str, rows: U64) -> pa.Table | None:
            return _read(path, self._footer(path), names, rows, room) if room.take(0) else None

        # Older files lack columns.
        tables = [SCHEMA.empty_table().select(names)]
        reading = [self._threads.submit(read, *each) for each in chosen]
        try:
            for each in reading:
                table = each.result()
                if table is None:
                    return None
                tables.append(table)
        finally:
            room.close()
            for each in reading:
                each.cancel()
        return whole(pa.concat_tables(tables, promote_options="default"), SCHEMA)

    def _index(self, path: str) -> Mapping[str, Field]:
        found = self._indexes.get(path)
        if found is None and PurePosixPath(path).name.startswith(STAY):
            found = read_index(self._lake, path)
            # One that is not there may come.
            if found is not None:
                with self._lock:
                    self._indexes[path] = found
        return found or {}

    def _footer(self, path: str) -> _Footer:
        with self._lock:
            found = self._footers.pop(path, None)
            if found is not None:
                # The one that was used last comes last.
                self._footers[path] = found
                return found
        metadata = pq.read_metadata(path)
        groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
        columns = frozenset(metadata.schema.to_arrow_schema().names)
        found = _Footer(metadata, columns, np.cumsum([0, *groups]).astype(np.uint64))
        with self._lock:
            self._footers[path] = found
            size = sum(footer.metadata.serialized_size for footer in self._footers.values())
            while size > _FOOTER_BYTES and len(self._footers) > 1:
                oldest = next(iter(self._footers))
                size -= self._footers.pop(oldest).metadata.serialized_size
        return found


def _keys(cursor: duckdb.DuckDBPyConnection, values: Sequence[str]) -> list[int]:
    sql = f"select {key_sql('value')} from (select unnest($values::varchar[]) as value)"
    return [int(key) for (key,) in cursor.execute(sql, {"values": list(values)}).fetchall()]


def _rows_of(index: Mapping[str, Field], wanted: Sequence[tuple[str, Sequence[int]]]) -> U64 | None:
    """The rows of a file that can meet all of the conditions, ascending; None where its index does not
    tell.
    """
    rows: U64 | None = None
    for path, keys in wanted:
        field = index.get(path)
        if field is None:
            continue
        found = [field.rows_of(key) for key in keys]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            continue
        some = known[0] if len(found) == 1 else np.unique(np.concatenate(known))
        rows = some if rows is None else np.intersect1d(rows, some)
    return rows


class _Room:
    """The bytes, and the time, that all files of a query share. Thread-safe."""

    def __init__(self, most_bytes: int, seconds: float, until: float | None = None) -> None:
        self._lock = threading.Lock()
        self._left = most_bytes
        self._seconds = seconds
        self._until = time.monotonic() + seconds if until is None else until

    def take(self, size: int) -> bool:
        """Whether there was room for so many bytes; raises QueryTimeoutError."""
        if time.monotonic() > self._until:
            raise QueryTimeoutError(self._seconds)
        with self._lock:
            self._left -= size
            return self._left >= 0

    def close(self) -> None:
        """Nobody waits for the rows any more."""
        with self._lock:
            self._left = -1


def _read(
    path: str, footer: _Footer, names: Sequence[str], rows: U64, room: _Room
) -> pa.Table | None:
    """Some rows of a file, ascending, in those of the columns that it has; None where there is no room
    for them.
    """
    columns = [name for name in names if name in footer.columns]
    groups = np.searchsorted(footer.starts, rows, "right") - 1
    parts = []
    with pq.ParquetFile(path, metadata=footer.metadata, memory_map=True) as file:
        for group in np.unique(groups).tolist():
            within = (rows[groups == group] - footer.starts[group]).astype(np.int64)
            for part in _parts_of(file, group, columns, within):
                if not room.take(part.nbytes):
                    return None
                parts.append(part)
    return pa.Table.from_batches(parts)


def _parts_of(
    file: pq.ParquetFile, group: int, columns: Sequence[str], rows: np.ndarray
) -> Iterator[pa.RecordBatch]:
    start = taken = 0
    size = min(_PIECE_ROWS, group_batch_rows(file, group))
    for batch in file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
        end = int(np.searchsorted(rows, start + len(batch)))
        if end > taken:
            yield batch.take(pa.array(rows[taken:end] - start))
        start, taken = start + len(batch), end
        if taken == len(rows):
            break
