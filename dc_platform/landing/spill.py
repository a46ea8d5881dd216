"""Identities in temporary files: mapped, so that the kernel may drop them from memory.

The files have no names: nothing is left of them when the process ends, however it ends. A directory
that refuses costs memory, never an identity.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from errno import ENOSPC
from pathlib import Path

import numpy as np

from dc_platform.landing.keys import U64, SortedKeys

log = logging.getLogger(__name__)

_WORD = 8
_REST_SECONDS = 60.0
# Kafka and the tables may lie on the same disk.
_LEAST_FREE = 2**30


class Spill:
    """Writes to `directory`, of a local disk, which is created when it is needed; without one it
    always refuses.

    The disk keeps 1 GiB free. After an error it refuses for a minute, by `clock` in seconds.
    """

    def __init__(
        self, directory: Path | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._resting_until = 0.0

    @property
    def refuses(self) -> bool:
        """Whether `write` would not even try."""
        return self._directory is None or self._clock() < self._resting_until

    def write(self, rows: int, pieces: Iterable[SortedKeys]) -> SortedKeys | None:
        """The `rows` (one at least) identities of `pieces`, mapped; None when that is refused."""
        if self._directory is None or self.refuses:
            return None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._directory).free < _LEAST_FREE + 2 * _WORD * rows:
                raise OSError(ENOSPC, "the room that is left is for events")
            with tempfile.TemporaryFile(dir=self._directory, buffering=0) as file:
                return _written(file.fileno(), rows, pieces)
        except OSError as error:
            self._resting_until = self._clock() + _REST_SECONDS
            log.warning("identities stay in memory, %s takes no files: %s", self._directory, error)
            return None


def _written(file: int, rows: int, pieces: Iterable[SortedKeys]) -> SortedKeys:
    """Layout: the high words, then the low ones."""
    at = 0
    for piece in pieces:
        _write(file, piece.high, at * _WORD)
        _write(file, piece.low, (rows + at) * _WORD)
        at += len(piece.high)
    assert at == rows
    # What the file lacks would kill the process when it is read: the size is what was written.
    content = mmap.mmap(file, 2 * rows * _WORD, access=mmap.ACCESS_READ)
    high, low = np.frombuffer(content, np.uint64).reshape(2, -1)
    return SortedKeys(high, low)


def _write(file: int, words: U64, at: int) -> None:
    rest = memoryview(words.tobytes())
    while rest:
        written = os.pwrite(file, rest, at)
        at, rest = at + written, rest[written:]
