"""Reader of Arrow blocks of events, for producers that already hold columns (docs/api.md).

The columns are those of design 3.2, in either spelling (`eventType` or `event_type`): `sourceId`,
`eventType` and `payload` (JSON text) are required; `eventId`, `timestamp` (epoch milliseconds or a
timestamp type), `version` and `tags` (map) may be left out or null. Rows are judged by the same
rules as lines; bronze keeps each as the line that it would have been (a payload that is no JSON: as
a string in that line).

Rows of many records are judged at once, in columns. What is not surely valid goes to the strict
judge as its line, alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Record, Records
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import (
    MAX_EVENT_TYPE_LENGTH,
    MAX_ID_LENGTH,
    MAX_TIMESTAMP_MS,
    MAX_VERSION_LENGTH,
    MIN_TIMESTAMP_MS,
    Rejected,
)
from dc_platform.contracts.reasons import Reason
from dc_platform.decode.arrow_lines import line, lines
from dc_platform.decode.arrow_records import Chunk, chunks, events_of
from dc_platform.decode.columns import (
    Indices,
    KnownSources,
    constant,
    header,
    judged_table,
    judged_versions,
    milliseconds,
    per_record,
    record_columns,
)
from dc_platform.decode.rejects import undecodable
from dc_platform.decode.ruled import Asked, judged
from dc_platform.decode.strangers import Line, Policy, read_lines
from dc_platform.decode.tags import are_tags, stored_tags
from dc_platform.decode.texts import Distinct, Mask, are_payloads, are_uuids, lengths, valid


def read_arrow(
    records: Sequence[Record], *, topic_id: str, sources: KnownSources, policy: Policy
) -> list[pa.Table]:
    """Judged tables of Arrow records; their rows are not all in order."""
    tables: list[pa.Table] = []
    damaged: list[tuple[Record, str]] = []
    # Rows that come in order do not have to be put in order afterwards.
    records = sorted(records, key=lambda record: (record.partition, record.offset))
    for chunk in chunks(_whole(records, damaged)):
        table, ok = _in_columns(chunk, topic_id, sources, policy)
        if ok.all():
            tables.append(table)
            continue
        if ok.any():
            tables.append(table.filter(pa.array(ok)))
        bad = np.flatnonzero(~ok)
        odd = [
            Line(int(chunk.rows[i]), int(chunk.indexes[i]), line(row))
            for i, row in zip(bad, chunk.events.take(pa.array(bad)).to_pylist(), strict=True)
        ]
        tables.append(
            read_lines(odd, chunk.records, topic_id=topic_id, sources=sources, policy=policy)
        )
    for record, message in damaged:
        verdict = Rejected(Reason.UNDECODABLE_BLOCK, message or "not an Arrow IPC stream")
        tables.append(undecodable([record], topic_id, verdict))
    return tables


def _whole(
    records: Sequence[Record], damaged: list[tuple[Record, str]]
) -> Iterator[tuple[Record, pa.Table]]:
    for record in records:
        try:
            events = events_of(record)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            damaged.append((record, str(error)))
            continue
        yield record, events


def _in_columns(
    chunk: Chunk, topic_id: str, sources: KnownSources, policy: Policy
) -> tuple[pa.Table, Mask]:
    """(judged table, ok). Rows that are not `ok` hold anything."""
    events = {name: chunk.events[name].chunk(0) for name in chunk.events.column_names}
    source, event_type, version = (
        Distinct(events[n]) for n in ("sourceId", "eventType", "version")
    )
    names = source.each(lambda text: identity.canonical_uuid(text) or text)
    asked, pair_of = _asked(chunk, source, names, sources)
    tenant = per_record(asked.tenants, pair_of)
    ok = (
        are_uuids(events["eventId"])
        & source.have(1, MAX_ID_LENGTH, null=False)
        & event_type.have(1, MAX_EVENT_TYPE_LENGTH, null=False)
        & version.have(0, MAX_VERSION_LENGTH, null=True)
        & valid(tenant)
        # Before the payload is looked at, or copied: the line's other bytes are few.
        & (lengths(events["payload"]) <= policy.max_event_bytes)
    )
    records = Records.of(chunk.records)
    reference = records.timestamps_ms[chunk.rows]
    ok &= _are_times(events["timestamp"], reference + policy.future_limit_ms)
    floor = policy.floors.highest(int(reference.max()))
    if floor is not None:
        ok &= events["timestamp"].fill_null(floor).to_numpy() >= floor
    tags = events["tags"] if events["tags"].null_count < len(ok) else None
    if tags is not None:
        ok &= are_tags(tags)
    ok &= are_payloads(events["payload"])
    raw = lines(events, source, event_type, version, tags, ok)
    ok &= lengths(raw) <= policy.max_event_bytes
    judged_by = judged(
        asked.rules,
        pair_of,
        lambda places: events["eventType"].take(pa.array(places)).to_pylist(),
        events["payload"],
        ok,
    )
    event_id = pc.ascii_lower(events["eventId"])
    time, scope = _times(events["timestamp"], reference, ok, source, names, event_id)
    columns = {
        **record_columns(records, chunk.rows, chunk.indexes, topic_id),
        "tenant_id": tenant,
        "source_id": per_record(names, source.codes),
        "event_id": event_id,
        "event_type": per_record([*event_type.values, None], event_type.codes),
        "event_time": milliseconds(pa.array(time)),
        "received_at": milliseconds(pa.array(reference)),
        "payload": events["payload"],
        "tags": tags if tags is None else stored_tags(tags),
        "schema_version": _versions(chunk, version, judged_by),
        "dedup_scope": scope,
        "sample_rate": pa.array(np.ones(len(ok))),
        "verdict": constant(blocks.VALID, len(ok)),
        "raw": raw.cast(pa.binary()),
        "judged_by": judged_by,
    }
    return judged_table(columns, len(ok)), ok


def _asked(
    chunk: Chunk, source: Distinct, names: Sequence[str | None], sources: KnownSources
) -> tuple[Asked, Indices]:
    """(what is known of each pair of source and record's time, the pair of each row)."""
    times, time_of = np.unique([r.timestamp_ms for r in chunk.records], return_inverse=True)
    pairs = source.codes.astype(np.int64) * len(times) + time_of[chunk.rows]
    # Sources mostly come in runs; runs are fewer to sort than rows.
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    different, pair_of = np.unique(pairs[starts], return_inverse=True)
    asked = [
        (names[pair // len(times)], int(times[pair % len(times)])) for pair in different.tolist()
    ]
    runs = np.diff(starts, append=len(pairs))
    return Asked.of(sources, asked), np.repeat(pair_of, runs)


def _are_times(timestamp: pa.Array, latest: Indices) -> Mask:
    milliseconds = timestamp.fill_null(0).to_numpy()
    in_range = (milliseconds >= MIN_TIMESTAMP_MS) & (milliseconds <= MAX_TIMESTAMP_MS)
    fits: Mask = in_range & (milliseconds <= latest) | ~valid(timestamp)
    return fits


def _times(
    timestamp: pa.Array,
    reference: Indices,
    ok: Mask,
    source: Distinct,
    names: Sequence[str | None],
    event_id: pa.Array,
) -> tuple[Indices, pa.Array]:
    """(event time in milliseconds, dedup_scope)."""
    given = valid(timestamp)
    # Out of range only in rows that are not ok.
    time = np.where(ok & given, timestamp.fill_null(0).to_numpy(), reference)
    scope = (time // identity.HOUR_MS).astype(np.int32)
    untimed = np.flatnonzero(ok & ~given)
    for row, text in zip(untimed, event_id.take(pa.array(untimed)).to_pylist(), strict=True):
        scope[row] = identity.dedup_scope(names[source.codes[row]] or "", text, None)
    return time, pa.array(scope)


def _versions(chunk: Chunk, version: Distinct, judged_by: pa.Array | None) -> pa.Array:
    """The version that a row gives, else that of the schema that judged it, else its record's."""
    of_records: list[Any] = [
        header(blocks.SCHEMA_VERSION)(r.headers) or blocks.DEFAULT_SCHEMA_VERSION
        for r in chunk.records
    ]
    if judged_by is None:
        known = len(version.values)
        codes = np.where(version.codes < known, version.codes, known + chunk.rows)
        return per_record([*version.values, *of_records], codes)
    given = version.spread([*version.values, None])
    return pc.coalesce(given, judged_versions(judged_by, per_record(of_records, chunk.rows)))
