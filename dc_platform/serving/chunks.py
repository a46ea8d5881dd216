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
from dc_platform.landing.keys import KeyMaker, Keys, Mask, SortedKeys

BYTES_PER_KEY = 20
Rows = npt.NDArray[np.int64]


class SpillFile:
    """A Parquet file that is deleted when nobody refers to it any more."""

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
        partitions = table["kafka_partition"].to_numpy()
        offsets = table["kafka_offset"].to_numpy()
        spans = {}
        for partition in np.unique(partitions):
            own = offsets[partitions == partition]
            spans[int(partition)] = (int(own.min()), int(own.max()))
        return cls(
            SortedKeys(keys.high[order], keys.low[order]),
            order,
            spans,
            len(table),
            table.nbytes + BYTES_PER_KEY * len(table),
            Facts.of(table),
            table=table,
        )

    def find(self, keys: Keys) -> Rows:
        """Rows of this chunk whose identity is among `keys`."""
        among = SortedKeys.of(keys).contains(Keys(*self.keys))
        rows: Rows = self.order[among].astype(np.int64)
        return rows

    def contains(self, keys: Keys) -> Mask:
        """Which of `keys` have a row here."""
        return self.keys.contains(keys)

    def above(self, border: Mapping[int, int], maker: KeyMaker) -> Chunk | None:
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
        return _chunk(self.table.filter(pa.array(keep)), maker)

    def without(self, rows: Rows, maker: KeyMaker) -> Chunk | None:
        """The chunk without some rows, which turned out to be duplicates."""
        if not len(rows):
            return self
        if self.table is None:
            return replace(self, excluded=self.excluded | set(rows.tolist()))
        keep = np.ones(self.rows, bool)
        keep[rows] = False
        table = self.table.filter(pa.array(keep))
        return _chunk(table, maker) if len(table) else None

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


def _chunk(table: pa.Table, maker: KeyMaker) -> Chunk:
    table = table.combine_chunks()
    return Chunk.of(table, maker.keys(table["source_id"], table["event_id"]))


def merged(chunks: Sequence[Chunk], maker: KeyMaker) -> Chunk:
    """Chunks in memory as one."""
    tables = [chunk.table for chunk in chunks if chunk.table is not None]
    if any(not table.schema.equals(tables[0].schema) for table in tables):
        # Which columns are dictionaries depends on the format that the rows came in.
        tables = [whole(table, SILVER_EVENTS.file_schema) for table in tables]
    return _chunk(pa.concat_tables(tables).unify_dictionaries(), maker)
