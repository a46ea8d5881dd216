"""Shared pieces of the readers: per-record columns, row lists, and the judged table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Records
from dc_platform.contracts import blocks
from dc_platform.contracts.tables import JUDGED

if TYPE_CHECKING:
    from dc_platform.contracts.schema_check import Rules

Indices = npt.NDArray[np.int64]


class KnownSources(Protocol):
    """Which sources exist, and what is asked of their events, as an append-only history."""

    def tenant_of(self, source_id: str, at_ms: int) -> str | None:
        """The tenant of a source that was registered at `at_ms`, else None."""
        ...

    def rules_of(self, source_id: str, at_ms: int) -> Rules | None:
        """What was asked of the source's events at `at_ms`; None where nothing was."""
        ...


class AnySource:
    """Accepts every source, into the default tenant where `known` does not say another
    (`DCP_UNKNOWN_SOURCES=accept`); asks what `known` asks.
    """

    def __init__(self, known: KnownSources | None = None) -> None:
        self._known = known

    def tenant_of(self, source_id: str, at_ms: int) -> str | None:
        """Never none."""
        known = None if self._known is None else self._known.tenant_of(source_id, at_ms)
        return known or blocks.DEFAULT_TENANT

    def rules_of(self, source_id: str, at_ms: int) -> Rules | None:
        """What is asked of a source that is known."""
        return None if self._known is None else self._known.rules_of(source_id, at_ms)


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are text."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def header(name: str) -> Callable[[dict[str, bytes]], str | None]:
    """Reads one of a record's headers as text; None when it is missing."""

    def read(headers: dict[str, bytes]) -> str | None:
        value = headers.get(name)
        return None if value is None else value.decode("utf-8", "replace")

    return read


def per_record(values: Sequence[Any], rows: Indices) -> pa.Array:
    """A string column whose row i has the value of record `rows[i]`, dictionary-encoded."""
    encoded = pa.array(values, pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(pa.array(rows)), encoded.dictionary)


def constant(value: str | None, size: int) -> pa.Array:
    """A dictionary-encoded column with one value."""
    if value is None:
        return pa.nulls(size, pa.dictionary(pa.int32(), pa.string()))
    return pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(size, np.int32)), pa.array([value], pa.string())
    )


def as_dictionary(column: pa.Array) -> pa.DictionaryArray:
    """`column`, dictionary-encoded."""
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def as_plain(column: pa.Array) -> pa.Array:
    """`column` without a dictionary."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def record_columns(
    records: Records, rows: Indices, indexes: Indices, topic_id: str
) -> dict[str, pa.Array]:
    """The columns that come from the record and the event's position in it."""
    address = {
        "topic_id": constant(topic_id, len(rows)),
        "kafka_partition": pa.array(records.partitions[rows].astype(np.int32)),
        "kafka_offset": pa.array(records.offsets[rows]),
        "kafka_index": pa.array(indexes.astype(np.int32)),
        "kafka_timestamp": milliseconds(pa.array(records.timestamps_ms[rows])),
    }
    return address | _header_columns(records.headers, rows) if records.have_headers else address


def _header_columns(headers: Sequence[dict[str, bytes]], rows: Indices) -> dict[str, pa.Array]:
    columns = {
        "content_type": _header_column(headers, rows, blocks.CONTENT_TYPE),
        "batch_id": _header_column(headers, rows, blocks.BATCH),
    }
    # Only what was read as a gateway's block has a block's identity: bronze alone must tell how a
    # record was read (landing.rebuild).
    ours = [
        blocks.BLOCK in h and (blocks.holds_events(h) or blocks.holds_rejects(h)) for h in headers
    ]
    if any(ours):
        block = [header(blocks.BLOCK)(h) if o else None for h, o in zip(headers, ours, strict=True)]
        counts = [
            blocks.counted_events(h.get(blocks.COUNTS, b"")) if o else None
            for h, o in zip(headers, ours, strict=True)
        ]
        columns["block_id"] = per_record(block, rows)
        columns["block_events"] = pa.array(counts, pa.int32()).take(pa.array(rows))
    return columns


def _header_column(headers: Sequence[dict[str, bytes]], rows: Indices, name: str) -> pa.Array:
    return per_record(list(map(header(name), headers)), rows)


def schema_versions(records: Records, rows: Indices) -> pa.Array:
    """The schema version that each event's record was stamped with."""
    if not records.have_headers:
        return constant(blocks.DEFAULT_SCHEMA_VERSION, len(rows))
    stamped = map(header(blocks.SCHEMA_VERSION), records.headers)
    return per_record([version or blocks.DEFAULT_SCHEMA_VERSION for version in stamped], rows)


def judged_versions(judged_by: pa.Array, versions: pa.Array) -> pa.Array:
    """`versions`, but where a schema judged the event the version of the schema."""
    encoded = as_dictionary(judged_by)
    known = [v if v is None else blocks.version_of(v) for v in encoded.dictionary.to_pylist()]
    return pc.coalesce(pa.array(known, pa.string()).take(encoded.indices), as_plain(versions))


def milliseconds(values: pa.Array) -> pa.Array:
    """Epoch milliseconds as UTC timestamps; the caller has checked the range."""
    return pc.multiply(values, 1000).cast(JUDGED.field("event_time").type)


def judged_table(columns: dict[str, Any], size: int) -> pa.Table:
    """A table with the columns of `JUDGED`; missing ones are null. Strings may be dictionaries."""
    arrays = []
    names = []
    for field in JUDGED:
        array = columns.get(field.name)
        if array is None:
            array = pa.nulls(size, field.type)
        names.append(field.name)
        arrays.append(array)
    return pa.table(arrays, names=names)


def plain(table: pa.Table) -> pa.Table:
    """`table` in the exact types of `JUDGED`, so that tables of several readers can be joined."""
    return table.cast(JUDGED)
