"""Judged rows from bronze: when Kafka no longer has a range, and when silver is built anew.

Bronze says what an event is: its verdict, its identity, its times. The decoder only brings back the
columns that bronze does not have, from the event's bytes, so neither a setting nor a source that
changed since can take from silver what it has. Whatever the settings refuse today is decoded:
limits and sources are not asked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Record, TopicInfo
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.tables import BRONZE_EVENTS, JUDGED
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder, concat, in_address_order
from dc_platform.decode.strangers import Line, Policy
from dc_platform.errors import FatalError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import Batch, Mask, Range, has_verdict, is_valid, mask_rows
from dc_platform.landing.pieces import bronze_rows

if TYPE_CHECKING:
    from dc_platform.landing.commits import Committer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNLIMITED = Policy(future_limit_ms=1 << 62, max_event_bytes=1 << 62)
_RECORD = ["topic_id", "kafka_partition", "kafka_offset"]
_OF_RECORD = [*_RECORD, "kafka_timestamp", "content_type", "block_id"]
# What the decoder has to find again, to be believed in what bronze does not have.
_KNOWN = ["kafka_partition", "kafka_offset", "kafka_index", "source_id", "event_id", "verdict"]
_MISSING = [name for name in JUDGED.names if name not in BRONZE_EVENTS.columns.names]


def replay_bronze(
    lake: Lake,
    info: TopicInfo,
    committer: Committer,
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
            f" and verdict <> '{blocks.DELETED}'"
        )
        for rows in bronze_rows(table, condition):
            judged = judged_from_bronze(rows)
            end = int(judged["kafka_offset"][-1].as_py()) + 1
            yield Batch(judged, {partition: Range(start, end)}, judged.nbytes)
            start = end
        if start < bronze:
            yield Batch(JUDGED.empty_table(), {partition: Range(start, bronze)}, 0)


def _record_starts(rows: pa.Table) -> Any:
    """Where in `rows`, which are in order, a record begins."""
    begins = np.zeros(len(rows), bool)
    begins[0] = True
    for name in _RECORD:
        codes = rows[name].combine_chunks().dictionary_encode().indices.to_numpy()
        begins[1:] |= codes[1:] != codes[:-1]
    return np.flatnonzero(begins)


def judged_from_bronze(rows: pa.Table) -> pa.Table:
    """The judged rows that `rows`, whole records of bronze in order, came from; in their order.

    Raises FatalError when the columns of a row that bronze calls valid cannot be rebuilt.
    """
    valid = is_valid(rows)
    topics = rows["topic_id"].combine_chunks().dictionary_encode()
    codes = topics.indices.to_numpy()
    tables, places = [], []
    for code, topic_id in enumerate(topics.dictionary.to_pylist()):
        mine = valid & (codes == code)
        if mine.any():
            tables.append(_accepted(mask_rows(rows, mine), topic_id))
            places.append(np.flatnonzero(mine))
    if not valid.all():
        rejected = has_verdict(rows, blocks.REJECTED)
        tables.append(_rejected(mask_rows(rows, rejected)))
        # What sampling left out is in bronze, and nowhere else.
        tables.append(_judged(mask_rows(rows, ~valid & ~rejected), {}))
        places += [np.flatnonzero(rejected), np.flatnonzero(~valid & ~rejected)]
    if not tables:
        return JUDGED.empty_table()
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables).take(pa.array(np.argsort(np.concatenate(places))))


def _accepted(rows: pa.Table, topic_id: str) -> pa.Table:
    """Valid rows of one topic as they were judged."""
    decoded = _decoded(rows, topic_id)
    _check_found_again(rows, decoded)
    return _judged(rows, {name: decoded[name] for name in _MISSING})


def _decoded(rows: pa.Table, topic_id: str) -> pa.Table:
    """What the decoder makes of valid rows. The identity of some depends on the topic."""
    starts = _record_starts(rows)
    heads = rows.select(_OF_RECORD).take(pa.array(starts)).to_pylist()
    raws = rows["raw"].to_pylist()
    indexes = rows["kafka_index"].to_pylist()
    whole: list[Record] = []
    # Events one by one, with their records: of strangers, and of blocks that have rejects, too.
    strange: tuple[list[Line], list[Record]] = ([], [])
    odd: tuple[list[Line], list[Record]] = ([], [])
    for head, start, end in zip(heads, starts, [*starts[1:], len(rows)], strict=True):
        of_gateway = head["block_id"] is not None
        if of_gateway and indexes[start] == 0 and indexes[end - 1] == end - start - 1:
            whole.append(_record(head, b"\n".join(raws[start:end])))
            continue
        lines, records = odd if of_gateway else strange
        lines += [Line(len(records), indexes[i], raws[i]) for i in range(start, end)]
        records.append(_record(head, b""))
    decoder = Decoder(topic_id, AnySource(), _UNLIMITED)
    tables = [decoder.decode(whole), decoder.decode_lines(*strange), decoder.decode_lines(*odd)]
    return in_address_order(concat([table for table in tables if len(table)]))


def _record(head: dict[str, Any], value: bytes) -> Record:
    """A record with the headers that say how it is read."""
    headers = {}
    if head["content_type"] is not None:
        headers[blocks.CONTENT_TYPE] = head["content_type"].encode()
    if head["block_id"] is not None:
        headers[blocks.BLOCK] = head["block_id"].encode()
        headers[blocks.VERDICT] = blocks.VALID.encode()
    return Record(
        partition=head["kafka_partition"],
        offset=head["kafka_offset"],
        timestamp_ms=(head["kafka_timestamp"] - _EPOCH) // timedelta(milliseconds=1),
        headers=headers,
        value=value,
    )


def _check_found_again(rows: pa.Table, decoded: pa.Table) -> None:
    size = min(len(rows), len(decoded))
    same: Mask = np.ones(size, bool)
    for name in _KNOWN:
        column = decoded[name].cast(JUDGED.field(name).type).slice(0, size)
        found = pc.equal(column, rows[name].cast(column.type).slice(0, size))
        same &= found.fill_null(False).to_numpy().astype(bool)
    if same.all() and len(rows) == len(decoded):
        return
    at = int(same.argmin()) if not same.all() else size - 1
    [row] = rows.slice(at, 1).select([*_RECORD, "kafka_index", "event_id"]).to_pylist()
    [found] = decoded.slice(at, 1).select(["verdict", "reason", "message", "event_id"]).to_pylist()
    raise FatalError(
        f"bronze.events calls the event {row['event_id']} at topic {row['topic_id']}, partition"
        f" {row['kafka_partition']}, offset {row['kafka_offset']}, index {row['kafka_index']} valid,"
        f" but its bytes now read as {found}; nothing was changed. Was the row damaged, or the"
        " decoder changed?"
    )


def _rejected(rows: pa.Table) -> pa.Table:
    """Rejected rows as they were judged: bronze has all but the identity of the bytes."""
    ids, scopes = [], []
    columns = (rows[name].to_pylist() for name in ("source_id", "request_hash", "request_index"))
    for source_id, request_hash, index in zip(*columns, strict=True):
        source = source_id or ""  # a record that could not be read names none
        ids.append(identity.quarantine_id(source, request_hash, index))
        scopes.append(identity.BUCKET_BASE + identity.bucket(source, ids[-1]))
    added = {"quarantine_id": ids, "dedup_scope": scopes}
    return _judged(rows, {name: pa.array(v, JUDGED.field(name).type) for name, v in added.items()})


def _judged(rows: pa.Table, added: Mapping[str, Any]) -> pa.Table:
    """Rows of bronze with the columns that it does not have; those that are not given are null."""
    columns = []
    for field in JUDGED:
        if field.name in _MISSING:
            column = added.get(field.name)
            columns.append(pa.nulls(len(rows), field.type) if column is None else column)
        elif field.name == "sample_rate":
            # Rows of a lake that is older than sampling.
            columns.append(rows[field.name].fill_null(1.0))
        else:
            columns.append(rows[field.name])
    return pa.table(columns, names=JUDGED.names).cast(JUDGED)
