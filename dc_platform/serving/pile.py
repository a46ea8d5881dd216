"""All chunks of the tail: small ones are merged, old ones spilled, and past its bounds it is full.

A thread writes what is spilled: 400,000 rows take half a second of CPU time, in which the tail would
see nothing new. What lands meanwhile makes the file worthless, and it is written again of what is left.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.landing.batch import Mask, below
from dc_platform.landing.keys import Keys
from dc_platform.priority import BEHIND, step_back_thread
from dc_platform.serving.chunks import BYTES_PER_KEY, Chunk, Rows, joined, merged

log = logging.getLogger(__name__)

# Polls of a flowing topic give chunks of a few rows: so many chunks or rows become one. A row is
# merged once, and no merging takes long: the tail sees nothing new meanwhile.
_SMALL_ROWS = 20_000
_SMALL_CHUNKS = 16
_SPILL_ROWS = 400_000
# Past so much of its memory the tail waits for what is being spilled.
_MOST_MEMORY = 1.25


class Pile:
    """`full` says that nothing may be added before some of it has landed. Not thread-safe."""

    def __init__(
        self,
        directory: Path,
        *,
        memory_mb: int,
        disk_mb: int,
        identity_memory_mb: int,
    ) -> None:
        self._directory = directory
        self._memory = memory_mb * 2**20
        self._disk = disk_mb * 2**20
        self._identity_memory = identity_memory_mb * 2**20
        self._spills = 0
        self._writer = ThreadPoolExecutor(1, "spill", step_back_thread, (BEHIND,))
        # What is being written, and what it will be.
        self._pending: tuple[list[Chunk], Future[Chunk]] | None = None
        self.chunks: list[Chunk] = []
        self.full = False

    def empty_directory(self) -> None:
        """Delete what an earlier process has left."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for file in self._directory.glob("tail-*"):
            file.unlink()

    def close(self) -> None:
        """End the thread that spills."""
        self._writer.shutdown()

    def clear(self) -> None:
        """Let go of everything."""
        self.chunks, self.full, self._pending = [], False, None

    def contains(self, keys: Keys) -> Mask:
        """Which of `keys` have a row."""
        found = np.zeros(len(keys), bool)
        for chunk in self.chunks:
            found |= chunk.contains(keys)
        return found

    def add(self, chunk: Chunk) -> None:
        """Add rows whose identities are new."""
        self.chunks.append(chunk)
        spilling = self._pending[0] if self._pending else []
        small = [c for c in self.chunks if _is_small(c) and c not in spilling]
        rows = sum(c.rows for c in small)
        if len(small) >= _SMALL_CHUNKS or (len(small) > 1 and rows >= _SMALL_ROWS):
            rest = [c for c in self.chunks if c not in small]
            self.chunks = [*rest, merged(small)]
        self.settle()
        self.full = self.full or self._past_its_bounds()

    def settle(self) -> bool:
        """Take in what was spilled, and spill more where memory is short; whether `chunks` changed."""
        changed = False
        if self._pending is not None and (self._pending[1].done() or self._is_short()):
            changed = self._replace(*self._pending)
        if self._pending is None and not self.full and self._memory_taken() > self._memory:
            self._pending = self._spill()
            if self._is_short():
                changed = self._replace(*self._pending) or changed
        return changed

    def cut(self, border: Mapping[int, int]) -> None:
        """Let go of what lies below the border."""
        above = [chunk.above(border) for chunk in self.chunks]
        self.chunks = [chunk for chunk in above if chunk is not None]
        self.full = self.full and self._past_its_bounds()

    def drop(self, keys: Keys, border: Mapping[int, int]) -> None:
        """Drop rows after the border whose identity has just landed from another address."""
        kept: list[Chunk] = []
        for chunk in self.chunks:
            rows = chunk.find(keys)
            if chunk.file is not None and len(rows):
                rows = _after(border, chunk.file.path, rows)
            remaining = chunk.without(rows)
            if remaining is not None:
                kept.append(remaining)
        self.chunks = kept

    def _spill(self) -> tuple[list[Chunk], Future[Chunk]]:
        chosen: list[Chunk] = []
        for chunk in self.chunks:
            if chunk.table is not None and sum(c.rows for c in chosen) < _SPILL_ROWS:
                chosen.append(chunk)
        self._spills += 1
        name = f"tail-{self._spills}"
        return chosen, self._writer.submit(lambda: joined(chosen).spill(self._directory, name))

    def _replace(self, chosen: Sequence[Chunk], future: Future[Chunk]) -> bool:
        """Put what was spilled in the place of what it was; waits for it."""
        self._pending = None
        try:
            spilled = future.result()
        except OSError as error:
            # No room: stay in memory, read no further, and say that answers are not complete.
            log.error("the tail cannot spill to %s: %s", self._directory, error)
            self.full = True
            return False
        if not set(chosen) <= set(self.chunks):
            return False
        self.chunks = [spilled, *(chunk for chunk in self.chunks if chunk not in chosen)]
        return True

    def _is_short(self) -> bool:
        return self._memory_taken() > self._memory * _MOST_MEMORY

    def _memory_taken(self) -> int:
        return sum(chunk.bytes for chunk in self.chunks if chunk.table is not None)

    def _past_its_bounds(self) -> bool:
        disk = sum(c.file.bytes for c in self.chunks if c.file is not None)
        identities = sum(c.rows for c in self.chunks) * BYTES_PER_KEY
        return disk > self._disk or identities > self._identity_memory


def _is_small(chunk: Chunk) -> bool:
    return chunk.table is not None and chunk.rows < _SMALL_ROWS


def _after(border: Mapping[int, int], file: Path, rows: Rows) -> Rows:
    """Of rows of a spilled chunk, those that its view does not leave out anyway."""
    addresses = pq.read_table(file, columns=["kafka_partition", "kafka_offset"])
    return rows[~below(addresses.take(pa.array(rows)), dict(border))]
