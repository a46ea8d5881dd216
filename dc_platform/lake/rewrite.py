"""Data files into one: what compaction writes. The rows stay, byte for byte.

Memory is bounded whatever the files hold: rows stream from file to file, and where they are put in
another order DuckDB sorts them, spilling what exceeds its share.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.parquet import (
    ROW_GROUP_ROWS,
    DataFile,
    statistics,
    writer_options,
)
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import sql_list

# Of DuckDB's sort; what the writer holds comes on top of it: one row group, of this size at most.
_SORT_MEMORY = "384MB"
_GROUP_BYTES = 64 * 2**20
# A batch of rows of a megabyte each must not be larger than a row group.
_BATCH_BYTES = 16 * 2**20
_BATCH_ROWS = 16_384
_ADDRESS = "topic_id, kafka_partition, kafka_offset, kafka_index"
_ORDER = {SILVER_EVENTS.name: f"date_trunc('hour', event_time), source_id, event_time, {_ADDRESS}"}
# What the names of merged files begin with; `SORTED`: those that are in order.
SORTED = "hour-"
MERGED = "tier-"


class Cancellation:
    """Lets another thread end a merge, the sort included."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._connection: duckdb.DuckDBPyConnection | None = None

    def cancel(self) -> None:
        """End the merge under way, and each that is begun later."""
        with self._lock:
            self._cancelled = True
            if self._connection is not None:
                self._connection.interrupt()

    @contextmanager
    def of(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """While a connection works."""
        with self._lock:
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def heed(self, pieces: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The pieces, until it is cancelled: raises StoreUnavailableError then."""
        for piece in pieces:
            if self._cancelled:
                raise StoreUnavailableError("the merge was cancelled; the next run begins it anew")
            yield piece


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

    `ordered`: silver by event hour, source and time, the others by address; else as they come.
    Raises StoreUnavailableError; what was written is removed then.
    """
    full = [f"{lake.uri_of(spec)}/{path}" for path in paths]
    name = f"{SORTED if ordered else MERGED}{uuid.uuid4()}.parquet"
    path = f"{spec.partition_by}={day.isoformat()}/{name}"
    try:
        if not ordered:
            return _write(lake, spec, path, day, cancelled.heed(_as_they_come(full, spec)))
        with scratch(memory=_SORT_MEMORY, threads=1) as connection, cancelled.of(connection):
            rows = _in_order(connection, full, spec)
            return _write(lake, spec, path, day, cancelled.heed(rows))
    except (OSError, duckdb.Error) as error:
        raise StoreUnavailableError(f"compacting {spec.name} failed: {error}") from error


def _as_they_come(paths: Sequence[str], spec: TableSpec) -> Iterator[pa.Table]:
    names = spec.file_schema.names
    for path in paths:
        with pq.ParquetFile(path) as file:
            size = sum(
                file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)
            )
            a_row = size // max(1, file.metadata.num_rows) + 1
            rows = min(_BATCH_ROWS, _BATCH_BYTES // a_row + 1)
            for batch in file.iter_batches(rows, columns=names, use_threads=False):
                yield pa.Table.from_batches([batch]).cast(spec.file_schema)


def _in_order(
    connection: duckdb.DuckDBPyConnection, paths: Sequence[str], spec: TableSpec
) -> Iterator[pa.Table]:
    names = ", ".join(spec.file_schema.names)
    order = _ORDER.get(spec.name, _ADDRESS)
    reader = connection.execute(
        f"select {names} from read_parquet({sql_list(paths)}, hive_partitioning = false)"
        f" order by {order}"
    ).to_arrow_reader(_BATCH_ROWS)
    for batch in reader:
        yield pa.Table.from_batches([batch]).cast(spec.file_schema)


def _write(
    lake: Lake, spec: TableSpec, path: str, day: date, pieces: Iterable[pa.Table]
) -> DataFile:
    stats: dict[str, Any] = statistics(spec.file_schema.empty_table(), spec.statistics)
    try:
        with (
            lake.output(spec, path) as sink,
            pq.ParquetWriter(sink, spec.file_schema, **writer_options(spec)) as writer,
        ):
            for group in _groups(pieces):
                writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
                stats = _together(stats, statistics(group, spec.statistics))
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
    """Row groups of whole pieces."""
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
