"""Columnar reader of strangers' JSON: 450,000 events a second of one core.

The texts are decoded into the specification's own struct (`json_members`); whatever follows is done
for many at once. The strict judge (`decode.strangers`) stays the only one that
rejects: a text that cannot be accepted here goes to it, alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Records
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.tables import TAGS
from dc_platform.decode.columns import (
    Indices,
    KnownSources,
    constant,
    judged_table,
    judged_versions,
    milliseconds,
    per_record,
    plain,
    record_columns,
    schema_versions,
)
from dc_platform.decode.json_members import Members, decoded
from dc_platform.decode.json_texts import Texts
from dc_platform.decode.ruled import Asked, judged
from dc_platform.decode.strangers import Policy, read_lines

_HEX_AS_ZERO = bytes(ord("0") if byte in b"0123456789abcdef" else byte for byte in range(256))
_UUID_SHAPE = b"00000000-0000-0000-0000-000000000000"


def read_json(
    texts: Texts,
    records: Records,
    *,
    topic_id: str,
    sources: KnownSources,
    policy: Policy,
) -> pa.Table:
    """The judged table of `texts`, which strangers' records held, in their order."""
    size = len(texts.rows)
    places, members = decoded(texts, policy.max_event_bytes)
    tables = []
    if len(places):
        table, ok = _Events(texts.at(places), members, records, topic_id).judged(sources, policy)
        if len(table) == size and ok.all():
            return table
        places = places[ok]
        tables.append(plain(table.filter(pa.array(ok))))
    others = np.setdiff1d(np.arange(size), places)
    lines = texts.lines(others)
    tables.append(read_lines(lines, records, topic_id=topic_id, sources=sources, policy=policy))
    order = np.argsort(np.concatenate([places, others]))
    return pa.concat_tables(tables).take(pa.array(order))


class _Events:
    """Events side by side, for what `strangers` does with one after the other."""

    def __init__(self, texts: Texts, members: Members, records: Records, topic_id: str) -> None:
        self._texts = texts
        self._members = members
        self._records = records
        self._topic_id = topic_id
        self._received: Indices = records.timestamps_ms[texts.rows]
        self._sources = _canonical(pa.array(members.source_ids, pa.string()))

    def judged(self, sources: KnownSources, policy: Policy) -> tuple[pa.Table, Any]:
        """(judged table, ok). Rows that are not `ok` have to be judged strictly."""
        members, size = self._members, len(self._received)
        received = pa.array(self._received)
        timestamps = pa.array(members.timestamps, pa.int64())
        event_ids, client_ids = self._ids()
        payloads, opens = members.payloads()
        asked, pair_of = self._asked(sources)
        tenants = per_record(asked.tenants, pair_of)
        limits = self._received + policy.future_limit_ms
        past = pc.less_equal(timestamps, pa.array(limits)).fill_null(True)
        known = tenants.is_valid().to_numpy(zero_copy_only=False)
        ok = opens & known & past.to_numpy(zero_copy_only=False)
        floor = policy.floors.highest(int(self._received.max()))
        if floor is not None:
            young = pc.greater_equal(timestamps, floor).fill_null(True)
            ok = ok & young.to_numpy(zero_copy_only=False)
        judged_by = judged(asked.rules, pair_of, self._types, payloads, ok)
        versions, tags = self._metadata(judged_by)
        columns = {
            **record_columns(
                self._records, self._texts.rows, self._texts.positions, self._topic_id
            ),
            "tenant_id": tenants,
            "source_id": self._sources,
            "event_id": event_ids,
            "client_event_id": client_ids,
            "event_type": pa.array(members.event_types, pa.string()).dictionary_encode(),
            "event_time": milliseconds(pc.coalesce(timestamps, received)),
            "received_at": milliseconds(received),
            "payload": payloads,
            "tags": tags,
            "schema_version": versions,
            "dedup_scope": self._scopes(timestamps, event_ids),
            "sample_rate": pa.array(np.ones(size)),
            "verdict": constant(blocks.VALID, size),
            "raw": self._texts.column(),
            "judged_by": judged_by,
        }
        return judged_table(columns, size), ok

    def _ids(self) -> tuple[pa.Array, pa.Array | None]:
        """(event_id, client_event_id): ids that are no usual UUIDs are named one by one."""
        ids = self._members.event_ids
        column = pa.array(ids, pa.string())
        odd = np.flatnonzero(~_are_usual(column)).tolist()
        if not odd:
            return column, None
        client_ids: list[str | None] = [None] * len(ids)
        names = self._sources.cast(pa.string()).to_pylist()
        for i in odd:
            given = ids[i]
            if given is not None:
                ids[i], client_ids[i] = identity.event_id_from_text(names[i] or "", given)
                continue
            record = self._records[self._texts.rows[i]]
            ids[i] = identity.event_id_from_address(
                self._topic_id, record.partition, record.offset, int(self._texts.positions[i])
            )
        return pa.array(ids, pa.string()), pa.array(client_ids, pa.string())

    def _asked(self, sources: KnownSources) -> tuple[Asked, Indices]:
        """(what is known of each pair of source and time, the pair of each event): asked once each.

        Where Kafka gives the time (LogAppendTime), all records of a batch have the same.
        """
        names = self._sources.dictionary.to_pylist()
        codes = self._sources.indices.fill_null(-1).to_numpy().astype(np.int64)
        moments = pa.array(self._received).dictionary_encode()
        times = moments.dictionary.to_pylist()
        pairs = pa.array(codes * len(times) + moments.indices.to_numpy()).dictionary_encode()
        asked = [
            (names[pair // len(times)] if pair >= 0 else None, times[pair % len(times)])
            for pair in pairs.dictionary.to_pylist()
        ]
        return Asked.of(sources, asked), pairs.indices.to_numpy()

    def _types(self, places: Indices) -> list[str | None]:
        return [self._members.event_types[place] for place in places]

    def _metadata(self, judged_by: pa.Array | None) -> tuple[pa.Array, pa.Array | None]:
        """(schema_version, tags)."""
        of_record = schema_versions(self._records, self._texts.rows)
        if judged_by is not None:
            of_record = judged_versions(judged_by, of_record)
        given = self._members.metadata
        if given.count(None) == len(given):
            return of_record, None
        versions = pa.array([m.version if m else None for m in given], pa.string())
        tags = [list(m.tags.items()) if m and m.tags else None for m in given]
        if versions.null_count < len(versions):
            of_record = pc.coalesce(versions, of_record.cast(pa.string()))
        return of_record, pa.array(tags, TAGS)

    def _scopes(self, timestamps: pa.Array, event_ids: pa.Array) -> pa.Array:
        hours = timestamps.fill_null(0).to_numpy() // identity.HOUR_MS
        missing = np.flatnonzero(timestamps.is_null().to_numpy(zero_copy_only=False))
        if len(missing):
            take = pa.array(missing)
            names = self._sources.take(take).cast(pa.string()).to_pylist()
            ids = event_ids.take(take).to_pylist()
            hours[missing] = [
                identity.BUCKET_BASE + identity.bucket(name or "", event_id)
                for name, event_id in zip(names, ids, strict=True)
            ]
        return pa.array(hours.astype(np.int32))


def _canonical(sources: pa.Array) -> pa.Array:
    """Source ids in their usual form, dictionary-encoded."""
    encoded = sources.dictionary_encode()
    given = encoded.dictionary.to_pylist()
    names = [identity.canonical_uuid(text) or text for text in given]
    if names == given:
        return encoded
    # Two forms of one id have become equal.
    return pa.array(names, pa.string()).take(encoded.indices).dictionary_encode()


def _are_usual(ids: pa.Array) -> Any:
    """Which ids are UUIDs as they are kept: in lower case, 8-4-4-4-12."""
    usual = pc.equal(pc.binary_length(ids), len(_UUID_SHAPE)).fill_null(False)
    usual = usual.to_numpy(zero_copy_only=False).copy()
    likely = ids if usual.all() else ids.filter(pa.array(usual))
    _, offsets, data = likely.buffers()
    if len(likely):
        begin, end = np.frombuffer(offsets, np.int32)[[0, len(likely)]]
        shapes = bytes(data[begin:end]).translate(_HEX_AS_ZERO)
        usual[usual] = np.frombuffer(shapes, f"S{len(_UUID_SHAPE)}") == _UUID_SHAPE
    return usual
