"""Judged rows from bronze: when Kafka no longer has a range, and when silver is built anew.

Bronze keeps what the records held: a gateway's block is put together again, a stranger's events are
judged one by one, as they were taken out of their record. Both go through the same decoder, and the
verdicts come out as they did the first time, because they depend on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

import duckdb
import msgspec
import pyarrow as pa

from dc_platform.broker.records import Record, TopicInfo
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.tables import BRONZE_EVENTS, JUDGED
from dc_platform.decode.decoder import Decoder, concat, in_address_order
from dc_platform.decode.strangers import Line
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, sql_list
from dc_platform.landing.batch import Batch, Range

if TYPE_CHECKING:
    from dc_platform.landing.commits import Committer

# Rows of bronze that are put together at once; a record is never split.
_ROWS = 200_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Metadata(msgspec.Struct):
    version: Any = None


class _Event(msgspec.Struct):
    metadata: _Metadata | None = None


_event = msgspec.json.Decoder(_Event)


def replay_bronze(
    lake: Lake,
    info: TopicInfo,
    committer: Committer,
    decoder: Decoder,
    *,
    kafka_begins: Mapping[int, int],
) -> Iterator[Batch]:
    """Batches of what is in bronze but not in silver, for partitions that Kafka cut off there."""
    for partition, bronze in committer.bronze_offsets.items():
        start = committer.offsets[partition]
        if bronze is None or start is None:
            continue
        if bronze <= start or kafka_begins.get(partition, 0) <= start:
            continue
        table = LakeTable(lake, BRONZE_EVENTS)
        condition = (
            f"topic_id = '{info.topic_id}' and kafka_partition = {partition}"
            f" and kafka_offset >= {start} and kafka_offset < {bronze}"
        )
        for rows in bronze_rows(table, condition):
            judged = judged_from_bronze(rows, decoder)
            end = int(judged["kafka_offset"][-1].as_py()) + 1
            yield Batch(judged, {partition: Range(start, end)}, judged.nbytes)
            start = end
        if start < bronze:
            yield Batch(JUDGED.empty_table(), {partition: Range(start, bronze)}, 0)


def bronze_rows(table: LakeTable, condition: str) -> Iterator[pa.Table]:
    """Rows of bronze in address order, in pieces that end with whole records."""
    paths = table.snapshot().paths
    if not paths:
        return
    with duckdb.connect(config={"threads": 2}) as connection:
        # Rows become Python's datetimes, which cannot hold the year 1 in a zone west of Greenwich.
        connection.execute("set TimeZone = 'UTC'")
        reader = connection.execute(
            f"select * exclude (ingest_date) from read_parquet({sql_list(paths)},"
            f" hive_partitioning = true) where {condition}"
            " order by kafka_partition, kafka_offset, kafka_index"
        ).to_arrow_reader(_ROWS)
        rest: pa.Table | None = None
        for piece in reader:
            rows = pa.Table.from_batches([piece])
            rows = pa.concat_tables([rest, rows]) if rest is not None else rows
            cut = _last_record_start(rows)
            if cut:
                yield rows.slice(0, cut)
            rest = rows.slice(cut)
        if rest is not None and len(rest):
            yield rest


def _last_record_start(rows: pa.Table) -> int:
    partition = rows["kafka_partition"].to_numpy()
    offset = rows["kafka_offset"].to_numpy()
    same = (partition == partition[-1]) & (offset == offset[-1])
    return int(same.argmax())


def judged_from_bronze(rows: pa.Table, decoder: Decoder) -> pa.Table:
    """The judged rows that `rows`, whole records of bronze in address order, came from."""
    direct: list[dict[str, Any]] = []
    written: list[Record] = []
    strange: list[Record] = []
    lines: list[Line] = []
    for _, members in groupby(rows.to_pylist(), _address):
        events = list(members)
        if _kept_as_it_is(events[0]):
            direct += events
        elif events[0]["block_id"] is not None:
            written.append(_block(events))
        else:
            lines += [Line(len(strange), e["kafka_index"], e["raw"]) for e in events]
            strange.append(_record(events, {}, b""))
    tables = [
        decoder.decode(written),
        decoder.decode_lines(lines, strange),
        _rejected(direct),
    ]
    tables = [table for table in tables if len(table)]
    if not tables:
        return JUDGED.empty_table()
    return in_address_order(concat(tables))


def _kept_as_it_is(row: dict[str, Any]) -> bool:
    """Rejects that a gateway judged, and records that could not be read: nothing to decode again.

    All events of a record are of one kind.
    """
    if row["verdict"] == blocks.VALID:
        return False
    whole = row["reason"] in (Reason.UNDECODABLE_BLOCK, Reason.UNSUPPORTED_CONTENT_TYPE)
    headers = {blocks.CONTENT_TYPE: (row["content_type"] or "").encode()}
    arrow = blocks.media_type(headers) == blocks.ARROW
    return whole or (row["block_id"] is not None and arrow)


def _address(row: dict[str, Any]) -> tuple[int, int]:
    return row["kafka_partition"], row["kafka_offset"]


def _block(events: list[dict[str, Any]]) -> Record:
    """A gateway's block. Its verdict is what makes it one (`contracts.blocks`)."""
    row = events[0]
    headers = {
        blocks.VERDICT: blocks.VALID,
        blocks.TENANT: row["tenant_id"],
        blocks.BLOCK: row["block_id"],
    }
    if row["block_events"] is not None:
        headers[blocks.COUNTS] = f'{{"":{row["block_events"]}}}'
    if row["batch_id"] is not None:
        headers[blocks.BATCH] = row["batch_id"]
    return _record(events, headers, b"\n".join(event["raw"] for event in events))


def _record(events: list[dict[str, Any]], headers: dict[str, str], value: bytes) -> Record:
    row = events[0]
    for name, text in (
        (blocks.CONTENT_TYPE, row["content_type"]),
        (blocks.SCHEMA_VERSION, _schema_version(events)),
    ):
        if text is not None:
            headers = headers | {name: text}
    return Record(
        partition=row["kafka_partition"],
        offset=row["kafka_offset"],
        timestamp_ms=(row["kafka_timestamp"] - _EPOCH) // timedelta(milliseconds=1),
        key=None,
        headers={name: text.encode() for name, text in headers.items()},
        value=value,
    )


def _schema_version(events: list[dict[str, Any]]) -> str | None:
    """The version of the record: that of an event without one of its own."""
    for event in events:
        if event["verdict"] != blocks.VALID or not _has_version(event["raw"]):
            return str(event["schema_version"])
    return None


def _has_version(raw: bytes) -> bool:
    metadata = _event.decode(raw).metadata
    return metadata is not None and metadata.version is not None


def _rejected(rows: list[dict[str, Any]]) -> pa.Table:
    judged = []
    for row in rows:
        source = row["source_id"] or ""  # a record that could not be read names none
        row_id = identity.quarantine_id(source, row["request_hash"], row["request_index"])
        scope = identity.BUCKET_BASE + identity.bucket(source, row_id)
        judged.append(row | {"quarantine_id": row_id, "dedup_scope": scope, "sample_rate": 1.0})
    return pa.Table.from_pylist(judged, schema=JUDGED)
