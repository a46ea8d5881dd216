"""Reader of the Arrow blocks in which gateways send rejected events (`contracts.rejects`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Record, Records
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS, Rejected
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import REJECTS
from dc_platform.decode.columns import header, judged_table, per_record, record_columns
from dc_platform.decode.strangers import record_hash, rejected_columns, rejected_row

_REASONS = {reason.value for reason in Reason}
_NOT_ARROW = Rejected(Reason.UNDECODABLE_BLOCK, "record is not the Arrow that it says")


def read_rejects(records: Sequence[Record], topic_id: str) -> pa.Table:
    """The judged table of blocks of rejected events."""
    parts = [_read(record) for record in records]
    damaged = [i for i, part in enumerate(parts) if part is None]
    tables = []
    if len(damaged) < len(records):
        whole = [(records[i], part) for i, part in enumerate(parts) if part is not None]
        tables.append(_judged([r for r, _ in whole], [t for _, t in whole], topic_id))
    if damaged:
        tables.append(undecodable([records[i] for i in damaged], topic_id))
    return pa.concat_tables([t.cast(tables[0].schema) for t in tables])


def _read(record: Record) -> pa.Table | None:
    try:
        table = pa.ipc.open_stream(record.value).read_all()
        # Before the cast, which trusts what the bytes claim.
        table.validate(full=True)
        table = table.cast(REJECTS)
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None
    return table if _is_whole(table) else None


def _is_whole(table: pa.Table) -> bool:
    """Whether every cell is as a gateway writes it."""
    if any(column.null_count for column in table.columns):
        return False
    times = table["received_at"].cast(pa.int64())
    in_range = pc.and_(
        pc.greater_equal(times, MIN_TIMESTAMP_MS * 1000),
        pc.less_equal(times, MAX_TIMESTAMP_MS * 1000),
    )
    return (
        bool(pc.all(in_range, min_count=0).as_py()) and set(table["reason"].to_pylist()) <= _REASONS
    )


def _judged(records: Sequence[Record], parts: Sequence[pa.Table], topic_id: str) -> pa.Table:
    table = pa.concat_tables(parts).combine_chunks()
    rows = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    indexes = np.concatenate([np.arange(len(part)) for part in parts])
    size = len(rows)
    ids = [
        identity.quarantine_id(source, request_hash, index)
        for source, request_hash, index in zip(
            *(table[name].to_pylist() for name in ("source_id", "request_hash", "request_index")),
            strict=True,
        )
    ]
    scopes = [
        identity.BUCKET_BASE + identity.bucket(source, row_id)
        for source, row_id in zip(table["source_id"].to_pylist(), ids, strict=True)
    ]
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    columns.update(record_columns(Records.of(records), rows, indexes, topic_id))
    columns.update(
        tenant_id=per_record(
            [header(blocks.TENANT)(r.headers) or blocks.DEFAULT_TENANT for r in records], rows
        ),
        schema_version=per_record(
            [
                header(blocks.SCHEMA_VERSION)(r.headers) or blocks.DEFAULT_SCHEMA_VERSION
                for r in records
            ],
            rows,
        ),
        dedup_scope=pa.array(scopes, pa.int32()),
        sample_rate=pa.array(np.ones(size)),
        verdict=pa.array([blocks.REJECTED] * size, pa.string()),
        quarantine_id=pa.array(ids, pa.string()),
        judged_by=per_record([header(blocks.JUDGED_BY)(r.headers) for r in records], rows),
    )
    return judged_table(columns, size)


def undecodable(
    records: Sequence[Record],
    topic_id: str,
    verdict: Rejected = _NOT_ARROW,
) -> pa.Table:
    """One rejected row for each record that cannot be read at all, with its bytes."""
    rows = [
        rejected_row(
            verdict,
            raw=record.value,
            source_id=None,
            request_hash=record_hash(topic_id, record),
            request_index=0,
            received_us=record.timestamp_ms * 1000,
            schema_version=header(blocks.SCHEMA_VERSION)(record.headers)
            or blocks.DEFAULT_SCHEMA_VERSION,
        )
        for record in records
    ]
    size = len(rows)
    address = record_columns(
        Records.of(records), np.arange(size), np.zeros(size, np.int64), topic_id
    )
    return judged_table(rejected_columns(rows) | address, size)
