"""Records in, judged rows out: the one function that landing, tail and backfills share.

Rows come out in the order of (partition, offset, index), one for each event that the records hold,
accepted or rejected. Nothing here looks at a clock or at another record, so the verdict on a record
is the same whenever and with whatever neighbours it is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.records import Record, Records
from dc_platform.contracts import blocks
from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS, Rejected
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.tables import JUDGED
from dc_platform.decode.arrow import read_arrow
from dc_platform.decode.blocks import groups, read_blocks
from dc_platform.decode.columns import KnownSources, plain
from dc_platform.decode.flags import with_lateness
from dc_platform.decode.json_columns import read_json
from dc_platform.decode.json_texts import Texts, as_texts, pieces, texts_of
from dc_platform.decode.rejects import read_rejects, undecodable
from dc_platform.decode.sampling import rates_of, sampled
from dc_platform.decode.strangers import Line, Policy, read_lines

_ADDRESS = [
    ("kafka_partition", "ascending"),
    ("kafka_offset", "ascending"),
    ("kafka_index", "ascending"),
]


class Decoder:
    """Judges records of one topic. Not thread-safe: it owns a DuckDB connection."""

    def __init__(self, topic_id: str, sources: KnownSources, policy: Policy | None = None) -> None:
        self._topic_id = topic_id
        self._sources = sources
        self._policy = policy or Policy()
        self._connection = duckdb.connect(config={"threads": 1})

    def decode(self, records: Sequence[Record]) -> pa.Table:
        """The judged table (`contracts.tables.JUDGED`, strings possibly as dictionaries)."""
        kinds = _by_kind(_with_sane_times(Records.of(records)))
        tables: list[pa.Table] = []
        for kind, members in kinds.items():
            tables += self._read(kind, members)
        tables = [t for t in tables if len(t)]
        if not tables:
            return JUDGED.empty_table()
        return in_address_order(with_lateness(concat(tables), self._policy.late_ms))

    def decode_lines(self, lines: Sequence[Line], records: Sequence[Record]) -> pa.Table:
        """The judged table of events that were already taken out of strangers' records."""
        if any(blocks.holds_events(record.headers) for record in records):
            # A line of a gateway's block is not judged as a stranger's.
            return self._read_lines(list(lines), records)
        columns = Records.of(records)
        tables = [self._read_texts(*piece) for piece in pieces(as_texts(lines), columns)]
        return concat(tables) if tables else JUDGED.empty_table()

    def _read(self, kind: str, records: Records) -> list[pa.Table]:
        if kind == "blocks":
            return [t for group in groups(records) for t in self._read_blocks(group)]
        if kind == "rejects":
            return [read_rejects(records, self._topic_id)]
        if kind == "arrow":
            return read_arrow(
                records,
                topic_id=self._topic_id,
                sources=self._sources,
                policy=self._policy,
            )
        if kind == "unsupported":
            verdict = Rejected(
                Reason.UNSUPPORTED_CONTENT_TYPE, "content-type header of the record is not known"
            )
            return [undecodable(records, self._topic_id, verdict)]
        return [self._read_texts(texts_of(group), group) for group in groups(records)]

    def _read_texts(self, texts: Texts, records: Records) -> pa.Table:
        return read_json(
            texts,
            records,
            topic_id=self._topic_id,
            sources=self._sources,
            policy=self._policy,
        )

    def _read_blocks(self, records: Records) -> list[pa.Table]:
        tables = self._judge_blocks(records)
        rates = rates_of(records)
        return tables if rates is None else sampled(self._connection, tables, rates)

    def _judge_blocks(self, records: Records) -> list[pa.Table]:
        table, ok, lines = read_blocks(self._connection, records, self._topic_id)
        if ok.all():
            return [table]
        bad = np.flatnonzero(~ok)
        odd = [
            Line(int(lines.rows[i]), int(lines.indexes[i]), raw)
            for i, raw in zip(bad, lines.raw.take(pa.array(bad)).to_pylist(), strict=True)
        ]
        return [table.filter(pa.array(ok)), self._read_lines(odd, records)]

    def _read_lines(self, lines: list[Line], records: Sequence[Record]) -> pa.Table:
        return read_lines(
            lines,
            records,
            topic_id=self._topic_id,
            sources=self._sources,
            policy=self._policy,
        )


def _with_sane_times(records: Records) -> Records:
    """Where producers set the time of records (a topic that was not made by the platform), it may
    be missing (-1) or no time at all.
    """
    times = records.timestamps_ms
    if not len(times) or (times.min() >= 0 and times.max() <= MAX_TIMESTAMP_MS):
        return records
    return records.with_times(np.clip(times, 0, MAX_TIMESTAMP_MS))


def _by_kind(records: Records) -> dict[str, Records]:
    filled = records.sizes > 0
    if not filled.all():
        records = records.take(np.flatnonzero(filled))
    if not records.have_headers:
        return {"lines": records} if len(records) else {}
    kinds = [_kind(headers) for headers in records.headers]
    first = kinds[0] if kinds else ""
    if kinds.count(first) == len(kinds):
        return {first: records} if kinds else {}
    # In the order in which they are met, as dict.fromkeys keeps it.
    return {
        kind: records.take(np.flatnonzero([k == kind for k in kinds]))
        for kind in dict.fromkeys(kinds)
    }


def _kind(headers: dict[str, bytes]) -> str:
    if blocks.BLOCK in headers:
        if blocks.holds_events(headers):
            return "blocks"
        if blocks.holds_rejects(headers):
            return "rejects"
    content_type = blocks.media_type(headers)
    if content_type == blocks.ARROW:
        return "arrow"
    if content_type in ("", blocks.JSON, blocks.NDJSON):
        return "lines"
    return "unsupported"


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """The tables as one, without copying when the same reader made them all."""
    first = tables[0].schema
    if all(t.schema == first for t in tables[1:]):
        return pa.concat_tables(tables)
    return pa.concat_tables([plain(t) for t in tables])


def in_address_order(table: pa.Table) -> pa.Table:
    """`table` sorted by (partition, offset, index); costs nothing when it already is."""
    partition, offset, index = (
        table[name].to_numpy().astype(np.int64)
        for name in ("kafka_partition", "kafka_offset", "kafka_index")
    )
    step = np.diff(partition)
    rises = (step > 0) | ((step == 0) & (np.diff(offset) > 0))
    rises |= (step == 0) & (np.diff(offset) == 0) & (np.diff(index) > 0)
    if rises.all():
        return table
    return table.take(pc.sort_indices(table, sort_keys=_ADDRESS))
