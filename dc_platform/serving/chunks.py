"""Pieces of the tail: rows that are valid, not landed, and the first of their identity.

A chunk never changes; every operation gives a new one, so a query that holds a chunk reads it
undisturbed and its memory is freed when the last query lets go. A spilled chunk keeps only its
identities in memory (20 bytes a row), its rows are a Parquet file that goes with it.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import whole
from dc_platform.lake.ranges import EVER, NEVER
from dc_platform.landing.keys import Keys, Mask, SortedKeys

BYTES_PER_KEY = 20
# Of a chunk of 20,000 rows; DuckDB takes 40 us for each.
_STRETCHES = 64
Rows = npt.NDArray[np.int64]


class SpillFile:
    """A file that is deleted when nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = path.stat().st_size
        weakref.finalize(self, path.unlink, missing_ok=True)


@dataclass(frozen=True)
class Facts:
    """What holds of all rows: their tenants are among these, their event times (epoch microseconds)
    between `least` and `most`, and if none is `sampled` each stands for itself alone.
    """

    tenants: frozenset[Any]
    least: int
    most: int
    sampled: bool

    @classmethod
    def of(cls, table: pa.Table) -> Facts:
        """The facts of rows of silver."""
        times = pc.min_max(table["event_time"].cast(pa.int64())).as_py()
        rates = pc.min_max(table["sample_rate"]).as_py()
        return cls(
            frozenset(table["tenant_id"].unique().to_pylist()),
            NEVER if times["min"] is None else times["min"],
            EVER if times["max"] is None else times["max"],
            sampled=rates["min"] != 1 or rates["max"] != 1,
        )

    @classmethod
    def of_all(cls, parts: Sequence[Facts]) -> Facts:
        """The facts of the rows of several."""
        return cls(
            frozenset().union(*(part.tenants for part in parts)),
            min(part.least for part in parts),
            max(part.most for part in parts),
            any(part.sampled for part in parts),
        )


@dataclass(frozen=True, eq=False)
class Chunk:
    """`order` maps the keys to rows."""

    keys: SortedKeys
    order: npt.NDArray[np.int32]
    spans: dict[int, tuple[int, int]]
    rows: int
    bytes: int
    facts: Facts
    table: pa.Table | None = None
    file: SpillFile | None = None
    excluded: frozenset[int] = frozenset()

    @classmethod
    def of(cls, table: pa.Table, keys: Keys) -> Chunk:
        """A chunk in memory. `table` has the columns of silver; `keys` are in its order."""
        order = np.argsort(keys.high, kind="stable").astype(np.int32)
        return cls._in_order(table, SortedKeys(keys.high[order], keys.low[order]), order)

    @classmethod
    def _in_order(cls, table: pa.Table, keys: SortedKeys, order: npt.NDArray[np.int32]) -> Chunk:
        partitions = table["kafka_partition"].to_numpy()
        offsets = table["kafka_offset"].to_numpy()
        spans = {}
        for partition in np.unique(partitions):
            own = offsets[partitions == partition]
            spans[int(partition)] = (int(own.min()), int(own.max()))
        size = table.nbytes + BYTES_PER_KEY * len(table)
        return cls(keys, order, spans, len(table), size, Facts.of(table), table=table)

    def find(self, keys: Keys) -> Rows:
        """Rows of this chunk whose identity is among `keys`."""
        among = SortedKeys.of(keys).contains(Keys(*self.keys))
        rows: Rows = self.order[among].astype(np.int64)
        return rows

    def contains(self, keys: Keys) -> Mask:
        """Which of `keys` have a row here."""
        return self.keys.contains(keys)

    def above(self, border: Mapping[int, int]) -> Chunk | None:
        """What of the chunk lies at or after the border; None when nothing does.

        A spilled chunk that the border cuts stays whole: its view's SQL leaves out what is below.
        """
        if all(last < border.get(p, 0) for p, (_, last) in self.spans.items()):
            return None
        if self.table is None or all(
            first >= border.get(p, 0) for p, (first, _) in self.spans.items()
        ):
            return self
        limits = np.array([border.get(p, 0) for p in range(max(self.spans) + 1)], np.int64)
        partitions = self.table["kafka_partition"].to_numpy()
        keep = self.table["kafka_offset"].to_numpy() >= limits[partitions]
        return self._kept(self.table, keep)

    def without(self, rows: Rows) -> Chunk | None:
        """The chunk without some rows, which turned out to be duplicates."""
        if not len(rows):
            return self
        if self.table is None:
            return replace(self, excluded=self.excluded | set(rows.tolist()))
        keep = np.ones(self.rows, bool)
        keep[rows] = False
        return self._kept(self.table, keep) if keep.any() else None

    def _kept(self, table: pa.Table, keep: Mask) -> Chunk:
        """Some rows, with the order that their identities have here."""
        among = keep[self.order]
        row = np.cumsum(keep, dtype=np.int32) - 1
        keys = SortedKeys(self.keys.high[among], self.keys.low[among])
        kept = Chunk._in_order(_sliced(table, keep), keys, row[self.order[among]])
        if 2 * kept.bytes >= self.bytes:
            # Memory goes with the whole.
            return replace(kept, bytes=self.bytes)
        assert kept.table is not None
        return replace(kept, table=kept.table.combine_chunks())

    def spill(self, directory: Path, name: str) -> Chunk:
        """The chunk with its rows on disk."""
        path = directory / f"{name}.parquet"
        # All columns of silver: queries put the file and silver's files together.
        rows = whole(self.table, SILVER_EVENTS.file_schema)
        try:
            pq.write_table(rows, path, compression="zstd", compression_level=1, store_schema=False)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return replace(self, table=None, file=SpillFile(path), bytes=BYTES_PER_KEY * self.rows)


def merged(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks in memory as one, its rows in order by partition: a border cuts each in two pieces."""
    together = joined(chunks)
    assert together.table is not None
    by_partition = np.argsort(together.table["kafka_partition"].to_numpy(), kind="stable")
    row = np.empty(together.rows, np.int32)
    row[by_partition] = np.arange(together.rows, dtype=np.int32)
    table = together.table.take(pa.array(by_partition)).combine_chunks()
    return replace(together, table=table, order=row[together.order])


def joined(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks in memory as one, whose rows stay where they are."""
    tables = [chunk.table for chunk in chunks if chunk.table is not None]
    if any(not table.schema.equals(tables[0].schema) for table in tables):
        # Which columns are dictionaries depends on the format that the rows came in.
        tables = [whole(table, SILVER_EVENTS.file_schema) for table in tables]
    firsts = np.cumsum([0, *(chunk.rows for chunk in chunks)])
    rows = np.concatenate(
        [chunk.order + np.int32(first) for chunk, first in zip(chunks, firsts, strict=False)]
    )
    high, low = (np.concatenate(words) for words in zip(*(c.keys for c in chunks), strict=True))
    # Stable is fast where sorted pieces stand one after the other: it merges them.
    order = np.argsort(high, kind="stable")
    spans: dict[int, tuple[int, int]] = {}
    for chunk in chunks:
        for partition, (first, last) in chunk.spans.items():
            least, most = spans.get(partition, (first, last))
            spans[partition] = (min(least, first), max(most, last))
    return Chunk(
        SortedKeys(high[order], low[order]),
        rows[order],
        spans,
        int(firsts[-1]),
        sum(chunk.bytes for chunk in chunks),
        Facts.of_all([chunk.facts for chunk in chunks]),
        table=pa.concat_tables(tables).unify_dictionaries(),
    )


def _sliced(table: pa.Table, keep: Mask) -> pa.Table:
    """Some rows of a table: where they are few stretches the same memory, which costs a hundredth."""
    edges = np.flatnonzero(np.diff(keep, prepend=False, append=False))
    if len(edges) > 2 * _STRETCHES:
        return table.filter(pa.array(keep)).combine_chunks()
    stretches = edges.reshape(-1, 2).tolist()
    return pa.concat_tables([table.slice(start, end - start) for start, end in stretches])
