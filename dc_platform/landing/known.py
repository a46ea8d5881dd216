"""A growing set of identities: exact, and in memory one to four bytes for each of them.

It is made of runs in order. What stays in memory is a bitmap that denies most new identities
(`maybe.py`) and the small runs. Large runs lie in files that are mapped: identity files of the table,
and temporary files that runs are merged to. They are searched for what the bitmap lets through: of
50,000 new identities against 180,000,000 for 2,400, and in half the memory for 4,600. Of 60,000,000 in
512 MiB, added 100,000 at a time, each took 0.7 µs to look up and to add, 135 MB in all, and the
longest pause was 0.5 s.

An identity is rewritten once for each level (a factor of four in size) that it rises: a dozen times
at most, 30 ns each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dc_platform.landing.keys import Keys, MappedKeys, Mask, SortedKeys, merged
from dc_platform.landing.maybe import MaybeKnown
from dc_platform.landing.spill import Spill

_WORDS_BYTES = 16
# Of the memory: what runs that are in no file may take before they go to one.
_SHARE_OF_WORDS = 16
# Smaller ones, 4 MB, are not worth a file.
_SPILL_ROWS = 2**18
# Searching one of a million for 4,500 identities takes 1 ms.
_RUNS = 32
_FAN_IN = 4
# Merging so many takes half a second, in which nothing lands.
_MERGED_ROWS = 2**24
_BITMAP_BYTES = 2**21
_BYTES_EACH = 2
_LEAST_BYTES_EACH = 1


@dataclass(eq=False)
class _Run:
    keys: SortedKeys
    mapped: bool
    marked: bool = False  # in the bitmap

    def __len__(self) -> int:
        return len(self.keys.high)

    @property
    def level(self) -> int:
        return (len(self).bit_length() - 1) // 2


class KnownIdentities:
    """Identities in `memory` bytes. Not thread-safe.

    The bitmap takes seven eighths of it at most: 16 bits for each identity while there is room, 8 for
    each of `limit`. With 512 MiB these are 234,881,024 and 469,762,048 identities. Large runs go to
    `spill`; where it refuses they stay in memory, 16 bytes each.
    """

    def __init__(self, memory: int, spill: Spill) -> None:
        self._memory = memory
        self._spill = spill
        self._largest_bitmap = memory * 7 // 8
        self.limit = self._largest_bitmap // _LEAST_BYTES_EACH
        self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self._runs: list[_Run] = []
        self._maybe: MaybeKnown | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """Memory that the kernel cannot drop: the bitmap, and the runs that are in no file."""
        return (self._bitmap_size() if self._runs else 0) + self._words_bytes()

    @property
    def full(self) -> bool:
        """Whether they take more memory than they may."""
        return self.bytes > self._memory

    def add(self, keys: Keys) -> None:
        """Add identities; `MappedKeys` in order stay where they are."""
        if not len(keys):
            return
        ordered = SortedKeys.of(keys)
        mapped = isinstance(keys, MappedKeys) and ordered.high is keys.high
        self._runs.append(_Run(ordered, mapped))
        self._count += len(keys)
        if self._words_bytes() > self._memory // _SHARE_OF_WORDS:
            self._to_file([run for run in self._runs if not run.mapped])
        if len(self._runs) > _RUNS:
            self._merge(self._smallest_level())

    def contain(self, keys: Keys) -> Mask:
        """Which of `keys` are among them."""
        found = np.zeros(len(keys), bool)
        if not self._runs:
            return found
        rows = np.flatnonzero(self._marked().has(keys.high))
        # In order the look-ups walk through memory instead of jumping about in it.
        rows = rows[np.argsort(keys.high[rows])]
        for run in self._runs:
            known = run.keys.contains(keys.take(rows))
            found[rows[known]] = True
            rows = rows[~known]
        return found

    def _marked(self) -> MaybeKnown:
        """The bitmap with all runs in it, made anew when it has to be larger."""
        size = self._bitmap_size()
        if self._maybe is None or self._maybe.size < size:
            self._maybe = None  # before there are two of them
            self._maybe = MaybeKnown(size)
            for run in self._runs:
                run.marked = False
        new = [run for run in self._runs if not run.marked]
        self._maybe.add(*(run.keys.high for run in new))
        for run in new:
            run.marked = True
        return self._maybe

    def _bitmap_size(self) -> int:
        size = _BITMAP_BYTES
        while size < self._count * _BYTES_EACH:
            size *= 2
        return min(size, self._largest_bitmap)

    def _words_bytes(self) -> int:
        return sum(len(run) for run in self._runs if not run.mapped) * _WORDS_BYTES

    def _smallest_level(self) -> list[_Run]:
        """Runs of one level: so many that what is merged of them is of a higher one, or none."""
        levels: dict[int, list[_Run]] = {}
        for run in sorted(self._runs, key=len):
            level = levels.setdefault(run.level, [])
            if sum(map(len, level)) + len(run) <= _MERGED_ROWS:
                level.append(run)
        enough = (runs for _, runs in sorted(levels.items()) if len(runs) >= _FAN_IN)
        return next(enough, [])

    def _merge(self, runs: list[_Run]) -> None:
        small = sum(map(len, runs)) < _SPILL_ROWS
        if small or not self._to_file(runs):
            # What is in large files stays there: it takes no memory.
            self._in_memory([run for run in runs if small or not run.mapped])

    def _to_file(self, runs: list[_Run]) -> bool:
        """Make one run of some, in a file; False when that is refused."""
        if not runs or self._spill.refuses:
            return False
        keys = self._spill.write(sum(map(len, runs)), merged([run.keys for run in runs]))
        if keys is not None:
            self._replace(runs, keys, mapped=True)
        return keys is not None

    def _in_memory(self, runs: list[_Run]) -> None:
        if len(runs) < _FAN_IN:
            return
        pieces = list(merged([run.keys for run in runs]))
        high, low = (np.concatenate(words) for words in zip(*pieces, strict=True))
        self._replace(runs, SortedKeys(high, low), mapped=False)

    def _replace(self, runs: list[_Run], keys: SortedKeys, *, mapped: bool) -> None:
        whole = _Run(keys, mapped, marked=all(run.marked for run in runs))
        self._runs = [run for run in self._runs if run not in runs] + [whole]
