"""Data files: an Arrow table in, a Parquet file and its log statistics out."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.store import Lake

# Files that stay: level 1 takes a third more time than -3 and 40 % less room.
COMPRESSION = "zstd"
COMPRESSION_LEVEL = 1
# Files that compaction replaces soon: an event of 320 bytes is written to bronze and silver in 1.15 µs
# instead of 1.6, and takes 218 bytes instead of 126. LZ4 needs as long and 8 % more room.
FAST_LEVEL = -3
# DuckDB scans a row group per thread; groups of a million rows made needle queries 5 times slower.
ROW_GROUP_ROWS = 122_880
# Of files in order, which stay: of one source or one id DuckDB then reads a third to a fifth of what it
# reads of groups of 122,880 (20 ms to 4 to 8 for a source among 3,000,000 rows); a scan of all rows,
# the size and the time to write are the same.
KEPT_GROUP_ROWS = 16_384
_READ_ROWS = 500_000
# Names of data files begin with it, but for those that compaction merges.
LANDED = "part-"
# Ids, payloads and raw bytes hardly repeat: building a dictionary for them is work for nothing.
_PLAIN_COLUMNS = frozenset({"event_id", "payload", "raw", "quarantine_id", "raw_sha256"})
# Hexadecimal digits at random: level 1 halves them, -3 takes three times as long as none for 8 %.
_RANDOM_COLUMNS = ("event_id", "quarantine_id", "raw_sha256")
# One event among 6,000,000 is found 20 times sooner, for 5 % of room and 8 % of the time to write.
_NEEDLES = {"silver.events": ("event_id",)}
_FALSE_POSITIVES = 0.01
# Numbers that lie close together: as differences they take a tenth less time and room.
_RISING_COLUMNS = (
    *("event_time", "received_at", "kafka_timestamp"),
    *("kafka_offset", "kafka_index", "raw_length"),
)


# Where a value begins like the one before: ids of one source, payloads and lines of one kind.
_ALIKE_COLUMNS = ("event_id", "payload", "raw", "client_event_id")


@dataclass(frozen=True)
class DataFile:
    """A Parquet file that is written but not yet committed. `path` is relative to the table."""

    path: str
    size: int
    rows: int
    partition: date | None
    stats: str
    modified_ms: int

    def renewed(self, path: str) -> DataFile:
        """The same file under another name, as young as now."""
        return replace(self, path=path, modified_ms=time.time_ns() // 1_000_000)


def writer_options(spec: TableSpec, level: int = COMPRESSION_LEVEL) -> dict[str, Any]:
    """How files of `spec` are encoded, at this level of ZSTD."""
    names = spec.file_schema.names
    rising = {name: "DELTA_BINARY_PACKED" for name in _RISING_COLUMNS if name in names}
    codecs = dict.fromkeys(_leaves(spec.file_schema), COMPRESSION)
    if level < 0:
        codecs |= {name: "none" for name in _RANDOM_COLUMNS if name in codecs}
    return {
        "compression": codecs,
        "compression_level": {name: level for name, codec in codecs.items() if codec != "none"},
        "use_dictionary": [n for n in names if n not in _PLAIN_COLUMNS and n not in rising],
        "column_encoding": rising or None,
        "write_statistics": [*spec.statistics],
        "store_schema": False,
        "coerce_timestamps": "us",
    }


def archive_options(spec: TableSpec, level: int) -> dict[str, Any]:
    """How files of the warm and cold tiers are encoded: what begins alike is stored as what differs. It
    takes 4 % less room than `writer_options` at the same level, and no more time.
    """
    options = writer_options(spec, level)
    alike = [name for name in _ALIKE_COLUMNS if name in spec.file_schema.names]
    options["use_dictionary"] = [n for n in options["use_dictionary"] if n not in alike]
    options["column_encoding"] = {
        **(options["column_encoding"] or {}),
        **dict.fromkeys(alike, "DELTA_BYTE_ARRAY"),
    }
    return options


def needle_options(spec: TableSpec, rows: int) -> dict[str, Any]:
    """What a file of `rows` rows that stays has beside `writer_options`, for queries of one id.

    DuckDB asks the filter of a column only when that has bounds in the file, too.
    """
    names = _NEEDLES.get(spec.name, ())
    if not names:
        return {}
    filters = {"ndv": max(1, min(rows, KEPT_GROUP_ROWS)), "fpp": _FALSE_POSITIVES}
    return {
        "bloom_filter_options": dict.fromkeys(names, filters),
        "write_statistics": [*spec.statistics, *names],
    }


def _leaves(schema: pa.Schema) -> list[str]:
    """What Parquet calls the columns of a schema; a map has two, a list has its elements'."""
    names = []
    for field in schema:
        ends: tuple[str, ...] = ("",)
        if pa.types.is_map(field.type):
            ends = (".key_value.key", ".key_value.value")
        elif pa.types.is_list(field.type):
            ends = (".list.element",)
        names += [field.name + end for end in ends]
    return names


def write_file(
    lake: Lake,
    spec: TableSpec,
    table: pa.Table,
    *,
    partition: date | None,
    level: int = COMPRESSION_LEVEL,
    group_rows: int = ROW_GROUP_ROWS,
) -> DataFile:
    """Write `table`, which has the columns of `spec.file_schema`, as one file of `spec`, in row groups
    of `group_rows`.
    """
    name = f"{LANDED}{uuid.uuid4()}.parquet"
    path = f"{spec.partition_by}={partition.isoformat()}/{name}" if partition else name
    names = spec.file_schema.names
    try:
        with lake.output(spec, path) as sink:
            pq.write_table(
                table.select(names),
                sink,
                row_group_size=group_rows,
                **writer_options(spec, level),
            )
            size = sink.tell()
    except OSError as error:
        # On a full disk half a file would take the room that the next attempt needs.
        lake.remove(spec, path)
        raise StoreUnavailableError(
            f"writing {spec.name} failed: {error}; free space or repair the store, landing goes on"
            " from where it stopped"
        ) from error
    return DataFile(
        path=path,
        size=size,
        rows=len(table),
        partition=partition,
        # Without escapes: delta-rs 1.6 decodes `\ud840\udc00` to another character.
        stats=json.dumps(statistics(table, spec.statistics, spec.added), ensure_ascii=False),
        modified_ms=time.time_ns() // 1_000_000,
    )


def read_batches(
    path: str, columns: Sequence[str], *, dictionaries: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    """Columns of a data file, in pieces; `dictionaries` come as the dictionaries they are stored as.

    For columns that are needed whole and fast. Queries go through DuckDB. Raises StoreUnavailableError,
    of a damaged file, too.
    """
    try:
        file = pq.ParquetFile(path, read_dictionary=list(dictionaries))
        yield from file.iter_batches(
            batch_size=_READ_ROWS, columns=list(columns), use_threads=False
        )
    except (OSError, pa.ArrowException) as error:
        raise StoreUnavailableError(f"reading {path} failed: {error}") from error


def whole(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly the columns of `schema`; missing ones are null."""
    size = len(table)
    arrays = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(size, field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def statistics(
    table: pa.Table, columns: tuple[str, ...], added: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The statistics of a file as the Delta protocol writes them."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    # Of the columns that older files lack, too: by it `Snapshot.lacking` knows where they are.
    nulls: dict[str, int] = {name: table[name].null_count for name in added}
    for name in columns:
        column = table[name]
        nulls[name] = column.null_count
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        bounds = pc.min_max(column).as_py()
        if bounds["min"] is not None:
            low[name] = as_json(bounds["min"], up=False)
            high[name] = as_json(bounds["max"], up=True)
    return {"numRecords": len(table), "minValues": low, "maxValues": high, "nullCount": nulls}


def as_json(value: Any, *, up: bool) -> Any:
    """A bound in the log's form: times in milliseconds, rounded outwards."""
    if not isinstance(value, datetime):
        return value
    value = value.astimezone(UTC)
    excess = value.microsecond % 1000
    if excess:
        value += timedelta(microseconds=(1000 - excess) if up else -excess)
    # Not strftime: it writes the year 900 with three digits, which no reader of the log takes.
    return value.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
