"""Which identities a table already has: exact, for ever, in bounded memory.

Identities are held in order, 128 bits each, and are looked up by binary search, a whole batch at a
time.

The table itself is the truth. Which part of it has to be in memory follows from the batch: only
events of the same `dedup_scope` can be retries of each other. A scope that is touched for the first
time is read from the table's files, or from the identity files beside them; past the memory limit all
scopes are forgotten, and a batch whose own scopes are too many is looked up in the files without
keeping anything. Files that came into the table since the last look-up, from whomever, are read
before the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.parquet import read_batches
from dc_platform.lake.table import Snapshot
from dc_platform.landing.keys import KeyMaker, Keys, Mask, SortedKeys
from dc_platform.landing.maybe import MaybeKnown

Scopes = npt.NDArray[np.int64]

# Two words, the scope that comes with them from an identity file, and four in the bitmap.
_BYTES_PER_IDENTITY = 24
_READERS = 2
# To make one run of 20 runs of a million takes 1.5 s.
_RUNS = 32
_LARGE = 100_000


class _Identities:
    """A growing set of identities: runs in order, the smaller ones merged when there are many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._runs: list[SortedKeys] = []
        self._maybe: MaybeKnown | None = None

    def __len__(self) -> int:
        return sum(len(run.high) for run in self._runs)

    def add(self, *parts: Keys) -> None:
        added = [SortedKeys.of(part) for part in parts if len(part) >= _LARGE]
        small = [part for part in parts if 0 < len(part) < _LARGE]
        if small:
            added.append(_merged(small))
        if added and self._maybe is None:
            self._maybe = MaybeKnown(self._limit)
        for run in added:
            assert self._maybe is not None
            self._maybe.add(run.high)
        self._runs += added
        if len(self._runs) > _RUNS:
            self._runs.sort(key=lambda run: len(run.high), reverse=True)
            self._runs[_RUNS // 2 :] = [_merged(self._runs[_RUNS // 2 :])]

    def contain(self, keys: Keys) -> Mask:
        found = np.zeros(len(keys), bool)
        if self._maybe is None:
            return found
        rows = np.flatnonzero(self._maybe.has(keys.high))
        # In order the look-ups walk through memory instead of jumping about in it.
        rows = rows[np.argsort(keys.high[rows])]
        ordered = keys.take(rows)
        known = np.zeros(len(rows), bool)
        for run in self._runs:
            known |= run.contains(ordered)
        found[rows] = known
        return found


def _merged(parts: Sequence[Keys | SortedKeys]) -> SortedKeys:
    high, low = (np.concatenate([part[word] for part in parts]) for word in (0, 1))
    return SortedKeys.of(Keys(high, low))


class IdentityIndex:
    """The identities of one table, by scope. Not thread-safe.

    `id_column` is `event_id` for silver.events and `quarantine_id` for silver.quarantine. `files`
    are the identity files beside the data files, where there are any.
    """

    def __init__(
        self,
        maker: KeyMaker,
        *,
        id_column: str,
        memory_mb: int,
        files: IdentityFiles | None = None,
    ) -> None:
        self._maker = maker
        self._files = files
        self._id_column = id_column
        self._limit = memory_mb * 2**20 // _BYTES_PER_IDENTITY
        self._known = _Identities(self._limit)
        self._scopes: Scopes = np.empty(0, np.int64)
        # Files whose identities of these scopes are in memory.
        self._seen: set[str] = set()
        self._version: int | None = None

    def __len__(self) -> int:
        return len(self._known)

    def known(self, keys: Keys, scopes: Scopes, snapshot: Snapshot) -> Mask:
        """Which of `keys`, whose scopes are `scopes`, the table already has at `snapshot`.

        What was added with `add` counts as well.
        """
        self._follow(snapshot)
        wanted = np.unique(scopes)
        missing = np.setdiff1d(wanted, self._scopes, assume_unique=True)
        if len(missing) and not self._load(missing, snapshot):
            self.clear()
            if not self._load(wanted, snapshot):
                self.clear()
                return self._search_files(keys, wanted, snapshot)
        return self._known.contain(keys)

    def add(self, keys: Keys, *, of: Iterable[str] = ()) -> None:
        """Identities that were committed: those of the files `of`, which need not be read then."""
        self._seen.update(of)
        if len(self) + len(keys) > self._limit:
            self.clear()
            return
        self._known.add(keys)

    def clear(self) -> None:
        """Forget everything; the next batch reads what it needs."""
        self._known = _Identities(self._limit)
        self._scopes = np.empty(0, np.int64)

    def _follow(self, snapshot: Snapshot) -> None:
        """Read what others have added to the table since the last look-up."""
        if snapshot.version == self._version:
            return
        if len(self._scopes):
            for keys in self.read(self.newcomers(snapshot, self._seen)):
                self.add(keys)
        self._seen = set(snapshot.paths)
        self._version = snapshot.version

    def newcomers(self, snapshot: Snapshot, known: set[str]) -> list[str]:
        """Files of a snapshot that have rows which none of the files `known` had."""
        if self._files is not None:
            return self._files.newcomers(snapshot.paths, known)
        return [path for path in snapshot.paths if path not in known]

    def _load(self, scopes: Scopes, snapshot: Snapshot) -> bool:
        parts: list[Keys] = []
        for keys in self.read(files_with(snapshot, scopes), scopes):
            parts.append(keys)
            if len(self) + sum(map(len, parts)) > self._limit:
                return False
        self._known.add(*parts)
        self._scopes = np.union1d(self._scopes, scopes)
        return True

    def _search_files(self, keys: Keys, scopes: Scopes, snapshot: Snapshot) -> Mask:
        wanted = _Identities(len(keys))
        wanted.add(keys)
        matches = _Identities(len(keys))
        for found in self.read(files_with(snapshot, scopes), scopes):
            matches.add(found.take(wanted.contain(found)))
        return matches.contain(keys)

    def read(self, paths: list[str], scopes: Scopes | None = None) -> Iterator[Keys]:
        """Identities of files of the table, of the scopes or of all."""
        columns = ["source_id", self._id_column, "dedup_scope"]
        wanted = None if scopes is None else np.sort(scopes)

        def keys_of(path: str) -> list[Keys]:
            kept = self._files.read(path, wanted) if self._files else None
            if kept is not None:
                return [Keys(*kept)]
            return [
                self._keys(batch, wanted)
                for batch in read_batches(path, columns, dictionaries=["source_id"])
            ]

        # Two files at a time, in order; what is not yet asked for is at most one file ahead.
        with ThreadPoolExecutor(_READERS) as readers:
            pending = deque(readers.submit(keys_of, path) for path in paths[:_READERS])
            rest = iter(paths[_READERS:])
            while pending:
                found = pending.popleft().result()
                following = next(rest, None)
                if following is not None:
                    pending.append(readers.submit(keys_of, following))
                yield from found

    def _keys(self, batch: pa.RecordBatch, scopes: Scopes | None) -> Keys:
        if scopes is not None:
            held = batch.column("dedup_scope").to_numpy(zero_copy_only=False)
            keep = np.isin(held, scopes)
            if not keep.all():
                batch = batch.filter(pa.array(keep))
        return self._maker.keys(batch.column("source_id"), batch.column(self._id_column))


def files_with(snapshot: Snapshot, scopes: Scopes) -> list[str]:
    """Files that may hold rows of the scopes, by the statistics in the log."""
    if not snapshot.paths or not len(scopes):
        return []
    ordered = np.sort(scopes)
    low, high = (
        bound.cast(pa.float64()).to_numpy(zero_copy_only=False)
        for bound in snapshot.bounds("dedup_scope")
    )
    unknown = np.isnan(low) | np.isnan(high)
    first = np.searchsorted(ordered, np.nan_to_num(low), side="left")
    after = np.searchsorted(ordered, np.nan_to_num(high), side="right")
    return [p for p, hit in zip(snapshot.paths, unknown | (first < after), strict=True) if hit]
