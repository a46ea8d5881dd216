"""Data files into one: what compaction writes. The rows stay, byte for byte.

Rows stream from file to file, some megabytes at a time; where they are put in another order DuckDB
sorts them, spilling what exceeds its share. It cannot sort what it cannot hold some vectors of, so
files with rows above some kilobytes are merged as they come. What is held is then a few row groups of
one file at most, which landing held when it wrote them.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.parquet import (
    KEPT_GROUP_ROWS,
    ROW_GROUP_ROWS,
    DataFile,
    needle_options,
    statistics,
    whole,
    writer_options,
)
from dc_platform.lake.scratch import scratch
from dc_platform.lake.sql import files_sql
from dc_platform.lake.store import Lake

log = logging.getLogger(__name__)

# Of DuckDB's sort; what the writer holds comes on top of it: one row group, of this size at most.
SORT_MEMORY_MB = 384
# DuckDB sorts vectors of 2,048 rows: of rows of 8 KB it can, of 16 KB it is out of these 384 MB.
_SORT_ROWS = 2048 * 48
_GROUP_BYTES = 64 * 2**20
# A batch of rows of a megabyte each must not be larger than a row group.
_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 16_384
_ADDRESS = "topic_id, kafka_partition, kafka_offset, kafka_index"
# Of a closed hour; the others by address.
ORDER = {SILVER_EVENTS.name: f"date_trunc('hour', event_time), source_id, event_time, {_ADDRESS}"}
# What the names of merged files begin with; `SORTED`: those of a closed hour, in order where their rows
# are not too large for it. They are done with.
SORTED = "hour-"
MERGED = "tier-"
# Those of the warm and cold tiers (`retention/tiers.py`): compaction leaves them alone.
WARM = "warm-"
COLD = "cold-"


class UnreadableError(StoreUnavailableError):
    """A file that cannot be read: missing, cut off, damaged. `path` is relative to the table."""

    def __init__(self, path: str, why: Exception) -> None:
        super().__init__(f"{path} cannot be read: {why}")
        self.path = path


class Cancellation:
    """Lets another thread end a merge, the sort included."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._connection: duckdb.DuckDBPyConnection | None = None

    def cancel(self) -> None:
        """End the merge under way, and each that is begun later.

        An interrupt of a query that is just about to begin is lost: ask again until it has ended.
        """
        with self._lock:
            self._cancelled = True
            if self._connection is not None:
                self._connection.interrupt()

    @contextmanager
    def of(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """While a connection works; raises as `heed` does."""
        with self._lock:
            self._check()
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def heed(self, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The pieces, until it is cancelled: raises StoreUnavailableError then."""
        for piece in pieces:
            self._check()
            yield piece

    def _check(self) -> None:
        if self._cancelled:
            raise StoreUnavailableError("the merge was cancelled; the next run begins it anew")


def merge_files(
    lake: Lake,
    spec: TableSpec,
    paths: Sequence[str],
    day: date,
    *,
    ordered: bool,
    cancelled: Cancellation,
) -> DataFile:
    """One new file, not yet committed, with the rows of `paths` (relative to the table).

    `ordered`: of a closed hour; silver by event hour, source and time, the others by address, where
    DuckDB can sort rows of their size; else as they come. Raises StoreUnavailableError, of a file
    that is to blame UnreadableError; what was written is removed then.
    """
    name = f"{SORTED if ordered else MERGED}{uuid.uuid4()}.parquet"
    path = f"{spec.partition_by}={day.isoformat()}/{name}"
    root = lake.uri_of(spec)
    try:
        if ordered:
            file = _sorted(lake, spec, paths, path, day, cancelled)
            if file is not None:
                return file
        pieces = cancelled.heed(_as_they_come(root, paths, spec))
        return write_rows(lake, spec, path, day, pieces)
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        raise StoreUnavailableError(f"compacting {spec.name} failed: {error}") from error


def _sorted(
    lake: Lake,
    spec: TableSpec,
    paths: Sequence[str],
    path: str,
    day: date,
    cancelled: Cancellation,
) -> DataFile | None:
    """The rows in order; None where DuckDB cannot sort them."""
    root = lake.uri_of(spec)
    seen = look_at(root, paths, spec)
    if not can_sort(seen.row_bytes):
        return None
    memory = f"{SORT_MEMORY_MB}MiB"
    try:
        with scratch(memory=memory, threads=1) as connection, cancelled.of(connection):
            full = [f"{root}/{path}" for path in paths]
            rows = _in_order(connection, full, seen.lacking, spec, batch_rows(seen.row_bytes))
            options = {**writer_options(spec), **needle_options(spec, seen.rows)}
            return write_rows(lake, spec, path, day, cancelled.heed(rows), options=options)
    except duckdb.OutOfMemoryException as error:
        # A few large rows together among many small ones.
        log.warning("%s is merged without order: %s", spec.name, error)
        return None
    except duckdb.Error:
        # DuckDB does not say which file it is: of one that cannot be read this does.
        for _ in cancelled.heed(_as_they_come(root, paths, spec)):
            pass
        raise


def _as_they_come(root: str, paths: Sequence[str], spec: TableSpec) -> Iterator[pa.Table]:
    for path in paths:
        for batch in in_pieces(root, path, spec.file_schema.names):
            # Columns that the file lacks are not missed here.
            yield whole(pa.Table.from_batches([batch]), spec.file_schema)


def in_pieces(root: str, path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of a data file (relative to `root`), some megabytes at a time. Raises UnreadableError."""
    with _reading(root, path) as file:
        for group in range(file.num_row_groups):
            rows = batch_rows(_row_bytes(file, group))
            yield from file.iter_batches(
                rows, row_groups=[group], columns=list(columns), use_threads=False
            )


def rows_in(root: str, path: str) -> int | None:
    """Rows of a data file, as the file says; None when it cannot be read."""
    try:
        with _reading(root, path) as file:
            return int(file.metadata.num_rows)
    except UnreadableError:
        return None


class Look(NamedTuple):
    """What is to be known of files before they become one: bytes of a row in the row group whose rows
    are the largest, rows, and absolute paths of those that lack a column.
    """

    row_bytes: int
    rows: int
    lacking: list[str]


def look_at(root: str, paths: Sequence[str], spec: TableSpec) -> Look:
    """Read the footers of some files of a table; paths are relative to it."""
    largest = count = 0
    lacking = []
    for path in paths:
        with _reading(root, path) as file:
            sizes = (_row_bytes(file, group) for group in range(file.num_row_groups))
            largest = max(largest, *sizes, 0)
            count += file.metadata.num_rows
            if not set(spec.added) <= set(file.schema_arrow.names):
                lacking.append(f"{root}/{path}")
    return Look(largest, count, lacking)


def can_sort(row_bytes: int) -> bool:
    """Whether DuckDB can sort rows of this size in the memory of a merge."""
    return row_bytes * _SORT_ROWS <= SORT_MEMORY_MB * 2**20


@contextmanager
def _reading(root: str, path: str) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(f"{root}/{path}") as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise UnreadableError(path, error) from error


def _row_bytes(file: pq.ParquetFile, group: int) -> int:
    found = file.metadata.row_group(group)
    return int(found.total_byte_size // max(1, found.num_rows)) + 1


def group_batch_rows(file: pq.ParquetFile, group: int) -> int:
    """Rows of a row group that are some megabytes at most."""
    return batch_rows(_row_bytes(file, group))


def batch_rows(row_bytes: int) -> int:
    return min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes) + 1)


def _in_order(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[str],
    lacking: Sequence[str],
    spec: TableSpec,
    batch_rows: int,
) -> Iterator[pa.Table]:
    names = ", ".join(spec.file_schema.names)
    order = ORDER.get(spec.name, _ADDRESS)
    rows = files_sql(spec, paths, lacking, "hive_partitioning = false", columns=names)
    reader = connection.execute(f"select * from ({rows}) order by {order}").to_arrow_reader(
        batch_rows
    )
    for batch in reader:
        yield pa.Table.from_batches([batch]).cast(spec.file_schema)


def write_rows(
    lake: Lake,
    spec: TableSpec,
    path: str,
    day: date,
    pieces: Iterable[pa.Table],
    *,
    options: dict[str, Any] | None = None,
) -> DataFile:
    """One new file of `spec`, not yet committed; what was written is removed when that fails."""
    stats: dict[str, Any] = statistics(spec.file_schema.empty_table(), spec.statistics, spec.added)
    try:
        with (
            lake.output(spec, path) as sink,
            pq.ParquetWriter(sink, spec.file_schema, **(options or writer_options(spec))) as writer,
        ):
            for group in _groups(pieces):
                writer.write_table(group, row_group_size=KEPT_GROUP_ROWS)
                stats = _together(stats, statistics(group, spec.statistics, spec.added))
            writer.close()
            size = sink.tell()
    except BaseException:
        with suppress(OSError):
            lake.remove(spec, path)
        raise
    return DataFile(
        path=path,
        size=size,
        rows=stats["numRecords"],
        partition=day,
        stats=json.dumps(stats, ensure_ascii=False),
        modified_ms=time.time_ns() // 1_000_000,
    )


def _groups(pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Some row groups of whole pieces."""
    held: list[pa.Table] = []
    for piece in pieces:
        held.append(piece)
        if (
            sum(map(len, held)) >= ROW_GROUP_ROWS - _BATCH_ROWS
            or sum(t.nbytes for t in held) >= _GROUP_BYTES
        ):
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _together(one: dict[str, Any], two: dict[str, Any]) -> dict[str, Any]:
    """Statistics of the rows of both. Times are texts of one form, which compare as the times do."""
    sides: dict[str, Any] = {}
    for side, choose in (("minValues", min), ("maxValues", max)):
        sides[side] = dict(one[side])
        for name, value in two[side].items():
            sides[side][name] = choose(value, sides[side].get(name, value))
    nulls = {name: n + two["nullCount"][name] for name, n in one["nullCount"].items()}
    return {"numRecords": one["numRecords"] + two["numRecords"], **sides, "nullCount": nulls}
