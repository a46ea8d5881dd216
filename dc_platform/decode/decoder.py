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

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS, Rejected
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.tables import JUDGED
from dc_platform.decode.arrow import read_arrow
from dc_platform.decode.blocks import groups, read_blocks
from dc_platform.decode.columns import KnownSources, plain
from dc_platform.decode.rejects import read_rejects, undecodable
from dc_platform.decode.strangers import Line, Policy, lines_of, read_lines

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
        groups: dict[str, list[Record]] = {}
        for record in map(_with_sane_time, records):
            if record.value:
                groups.setdefault(_kind(record), []).append(record)
        tables: list[pa.Table] = []
        for kind, members in groups.items():
            tables += self._read(kind, members)
        tables = [t for t in tables if len(t)]
        if not tables:
            return JUDGED.empty_table()
        return in_address_order(concat(tables))

    def decode_lines(self, lines: Sequence[Line], records: Sequence[Record]) -> pa.Table:
        """The judged table of events that were already taken out of strangers' records."""
        return self._read_lines(list(lines), list(records))

    def _read(self, kind: str, records: list[Record]) -> list[pa.Table]:
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
        return [self._read_lines(list(lines_of(g)), g) for g in groups(records)]

    def _read_blocks(self, records: list[Record]) -> list[pa.Table]:
        table, ok, lines = read_blocks(self._connection, records, self._topic_id)
        if ok.all():
            return [table]
        bad = np.flatnonzero(~ok)
        odd = [
            Line(int(lines.rows[i]), int(lines.indexes[i]), raw)
            for i, raw in zip(bad, lines.raw.take(pa.array(bad)).to_pylist(), strict=True)
        ]
        return [table.filter(pa.array(ok)), self._read_lines(odd, records)]

    def _read_lines(self, lines: list[Line], records: list[Record]) -> pa.Table:
        return read_lines(
            lines,
            records,
            topic_id=self._topic_id,
            sources=self._sources,
            policy=self._policy,
        )


def _with_sane_time(record: Record) -> Record:
    """Where producers set the time of records (a topic that was not made by the platform), it may
    be missing (-1) or no time at all.
    """
    if 0 <= record.timestamp_ms <= MAX_TIMESTAMP_MS:
        return record
    return record._replace(timestamp_ms=min(max(record.timestamp_ms, 0), MAX_TIMESTAMP_MS))


def _kind(record: Record) -> str:
    if blocks.holds_events(record.headers):
        return "blocks"
    if blocks.holds_rejects(record.headers):
        return "rejects"
    content_type = blocks.media_type(record.headers)
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
