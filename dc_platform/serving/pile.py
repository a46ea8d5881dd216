"""All chunks of the tail: small ones are merged, old ones spilled, and past its bounds it is full."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.landing.batch import Mask, below
from dc_platform.landing.keys import KeyMaker, Keys
from dc_platform.serving.chunks import BYTES_PER_KEY, Chunk, Rows, merged

log = logging.getLogger(__name__)

# Polls of a flowing topic give chunks of a few rows: so many small ones become one.
_SMALL_ROWS = 20_000
_SMALL_CHUNKS = 16
_SPILL_ROWS = 400_000


class Pile:
    """`full` says that nothing may be added before some of it has landed. Not thread-safe."""

    def __init__(
        self,
        directory: Path,
        maker: KeyMaker,
        *,
        memory_mb: int,
        disk_mb: int,
        identity_memory_mb: int,
    ) -> None:
        self._directory = directory
        self._maker = maker
        self._memory = memory_mb * 2**20
        self._disk = disk_mb * 2**20
        self._identity_memory = identity_memory_mb * 2**20
        self._spills = 0
        self.chunks: list[Chunk] = []
        self.full = False

    def empty_directory(self) -> None:
        """Delete what an earlier process has left."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for file in self._directory.glob("tail-*.parquet"):
            file.unlink()

    def clear(self) -> None:
        """Let go of everything."""
        self.chunks, self.full = [], False

    def contains(self, keys: Keys) -> Mask:
        """Which of `keys` have a row."""
        found = np.zeros(len(keys), bool)
        for chunk in self.chunks:
            found |= chunk.contains(keys)
        return found

    def add(self, chunk: Chunk) -> None:
        """Add rows whose identities are new."""
        self.chunks.append(chunk)
        small = [c for c in self.chunks if c.table is not None and c.rows < _SMALL_ROWS]
        if len(small) >= _SMALL_CHUNKS:
            rest = [c for c in self.chunks if c not in small]
            self.chunks = [*rest, merged(small, self._maker)]
        spilled = True
        if sum(c.bytes for c in self.chunks if c.table is not None) > self._memory:
            spilled = self._spill()
        self.full = not spilled or self._past_its_bounds()

    def cut(self, border: Mapping[int, int]) -> None:
        """Let go of what lies below the border."""
        above = [chunk.above(border, self._maker) for chunk in self.chunks]
        self.chunks = [chunk for chunk in above if chunk is not None]
        self.full = self.full and self._past_its_bounds()

    def drop(self, keys: Keys, border: Mapping[int, int]) -> None:
        """Drop rows after the border whose identity has just landed from another address."""
        kept: list[Chunk] = []
        for chunk in self.chunks:
            rows = chunk.find(keys)
            if chunk.file is not None and len(rows):
                rows = _after(border, chunk.file.path, rows)
            remaining = chunk.without(rows, self._maker)
            if remaining is not None:
                kept.append(remaining)
        self.chunks = kept

    def _spill(self) -> bool:
        chosen: list[Chunk] = []
        for chunk in self.chunks:
            if chunk.table is not None and sum(c.rows for c in chosen) < _SPILL_ROWS:
                chosen.append(chunk)
        rest = [c for c in self.chunks if c not in chosen]
        self._spills += 1
        try:
            whole = merged(chosen, self._maker).spill(self._directory, f"tail-{self._spills}")
        except OSError as error:
            # No room: stay in memory, read no further, and say that answers are not complete.
            log.error("the tail cannot spill to %s: %s", self._directory, error)
            return False
        self.chunks = [whole, *rest]
        return True

    def _past_its_bounds(self) -> bool:
        disk = sum(c.file.bytes for c in self.chunks if c.file is not None)
        identities = sum(c.rows for c in self.chunks) * BYTES_PER_KEY
        return disk > self._disk or identities > self._identity_memory


def _after(border: Mapping[int, int], file: Path, rows: Rows) -> Rows:
    """Of rows of a spilled chunk, those that its view does not leave out anyway."""
    addresses = pq.read_table(file, columns=["kafka_partition", "kafka_offset"])
    return rows[~below(addresses.take(pa.array(rows)), dict(border))]
