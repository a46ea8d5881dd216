"""When a batch is committed: as fresh as was asked for, in files as large as was asked for.

    idle topic        at once, when the last commit is longer ago than the freshness target
    a trickle         one commit per freshness target, its own duration included
    a flood           by size
    commits too slow  a batch grows while the one before is committed, so that none is smaller than
                      what came in meanwhile, up to the size: throughput rises with the load
    behind            by size: what waited in Kafka for long gains nothing from many small commits
    a run begins      with a small batch: there is nothing to commit while the first one is read

Nothing here knows of Kafka, Delta or threads; time is asked of `clock`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# What a batch may hold whatever the target file size: of 320 bytes each, 150,000 judged events are
# 0.2 GB, and up to three batches are held at once (read, waiting, committed).
HELD_ROWS = 150_000
HELD_BYTES = 128 * 2**20

# Of a full batch, what the first ones of a run take: committing begins after 0.1 s instead of 0.5.
_FIRST_SHARES = (0.25, 0.5)

# Bytes of silver's file per byte in Kafka's records, until a commit has shown it.
_FILE_SHARE = 0.25
# A file of a few rows is mostly footer and says nothing about the share.
_TELLING_BYTES = 2**20
# The newest commit's weight in what the next one is expected to take.
_NEWEST = 0.3
# A fifth of the time at least is left for reading when commits take longer than the target.
_READING = 0.25
# Freshness targets that a record has waited in Kafka when the run counts as behind, and that a batch
# may then take to fill.
_BEHIND = 10.0


class Pacing:
    """Decides when the open batch is closed. The reader asks, the lander tells.

    `freshness_seconds` from the first record's arrival to its commit; `file_bytes` of a data file of
    silver. `draining`: what is there is landed without waiting for more.
    """

    def __init__(
        self,
        freshness_seconds: float,
        file_bytes: float,
        *,
        rows: int = HELD_ROWS,
        bytes_: int = HELD_BYTES,
        draining: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._freshness = freshness_seconds
        self._file_bytes = file_bytes
        self._rows = rows
        self._bytes = bytes_
        self._draining = draining
        self._clock = clock
        self._share = _FILE_SHARE
        self._commit_seconds = 0.0
        self._committing = False
        self._closed_at = float("-inf")
        self._batches = 0

    # --- the reader asks ---

    def full(self, rows: int, size: int) -> bool:
        """Whether a batch of so many rows and bytes is large enough; it is then not read on."""
        first = self._batches < len(_FIRST_SHARES)
        share = _FIRST_SHARES[self._batches] if first else 1.0
        target = min(self._bytes, self._file_bytes / self._share)
        return rows >= share * self._rows or size >= share * target

    def due(self, age: float | None, *, idle: bool, late: float = 0.0) -> bool:
        """Whether a batch that is not full is to be closed.

        `age`: seconds since its first record was read, None without records. `idle`: the topic has
        nothing more to give. `late`: seconds that the record had waited in Kafka when it was read.
        """
        if idle and self._draining:
            return True
        if self._committing:
            return False
        if idle and self._clock() - self._closed_at >= self._freshness:
            return True
        return age is not None and age >= self._patience(late)

    def closed(self) -> None:
        """A batch was closed."""
        self._closed_at = self._clock()
        self._batches += 1

    def _patience(self, late: float) -> float:
        if late > _BEHIND * self._freshness:
            return _BEHIND * self._freshness
        return max(self._freshness - self._commit_seconds, self._commit_seconds * _READING)

    # --- the lander tells ---

    def committing(self) -> None:
        """A commit has begun."""
        self._committing = True

    def committed(self, seconds: float, size: int, file_bytes: int) -> None:
        """It took so long; a batch of `size` bytes became a file of `file_bytes`, 0: none."""
        self._committing = False
        if not self._commit_seconds:
            self._commit_seconds = seconds
        self._commit_seconds += _NEWEST * (seconds - self._commit_seconds)
        if file_bytes and size >= _TELLING_BYTES:
            self._share += _NEWEST * (file_bytes / size - self._share)
