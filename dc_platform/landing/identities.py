"""Which identities a table already has: exact, for ever, in bounded memory.

Identities are 128 bits each, and are looked up a whole batch at a time (`known.py`).

The table itself is the truth. Which part of it has to be in memory follows from the batch: only
events of the same `dedup_scope` can be retries of each other. A scope that is touched for the first
time is read from the table's files, or from the identity files beside them; past the memory limit all
scopes are forgotten, and a batch whose own scopes are too many is looked up in the files without
keeping anything. Files that came into the table since the last look-up, from whomever, are read
before the next one.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.parquet import read_batches
from dc_platform.lake.table import Snapshot
from dc_platform.landing.keys import KeyMaker, Keys, MappedKeys, Mask, SortedKeys
from dc_platform.landing.known import KnownIdentities
from dc_platform.landing.maybe import MaybeKnown
from dc_platform.landing.spill import Spill

Scopes = npt.NDArray[np.int64]

_READERS = 2
_BYTES_PER_KEY = 4
_MOST_READ_AHEAD = 50_000_000
_NO_SCOPES: Scopes = np.empty(0, np.int64)
_NO_KEYS = Keys(np.empty(0, np.uint64), np.empty(0, np.uint64))

log = logging.getLogger(__name__)


class IdentityIndex:
    """The identities of one table, by scope. Not thread-safe.

    `id_column` is `event_id` for silver.events and `quarantine_id` for silver.quarantine. `files`
    are the identity files beside the data files, where there are any. Of `memory_mb` (MiB) seven
    eighths are for a bitmap, a byte or more for each identity; the rest for small commits. The words of
    the others lie in files: those of the table, and temporary ones in `spill_directory`, 16 bytes for
    each identity. Without that directory, or when it is full, they take memory.
    """

    def __init__(
        self,
        maker: KeyMaker,
        *,
        id_column: str,
        memory_mb: int,
        files: IdentityFiles | None = None,
        spill_directory: Path | None = None,
    ) -> None:
        self._maker = maker
        self._files = files
        self._id_column = id_column
        self._known = KnownIdentities(memory_mb * 2**20, Spill(spill_directory))
        self._limit = self._known.limit
        self._scopes = _NO_SCOPES
        # Scopes that together are too many for memory.
        self._too_many = _NO_SCOPES
        # Files whose identities of these scopes are in memory.
        self._seen: set[str] = set()
        self._version: int | None = None

    def __len__(self) -> int:
        return len(self._known)

    @property
    def memory(self) -> int:
        """Bytes that the kernel cannot drop."""
        return self._known.bytes

    def known(self, keys: Keys, scopes: Scopes, snapshot: Snapshot) -> Mask:
        """Which of `keys`, whose scopes are `scopes`, the table already has at `snapshot`.

        What was added with `add` counts as well.
        """
        self._follow(snapshot)
        wanted = np.unique(scopes)
        missing = np.setdiff1d(wanted, self._scopes, assume_unique=True)
        if len(missing) and not self._load_or_forget(missing, wanted, snapshot):
            return self._search_files(keys, wanted, snapshot)
        return self._known.contain(keys)

    def read_ahead(self, snapshot: Snapshot) -> None:
        """Read what a first batch is likely to be looked up in: the scopes of what landed last.

        20,000,000 identities take half a second, in which a run connects and reads its first batch.
        More than twice as many are left to the batch, which may need a part of them.
        """
        try:
            self._follow(snapshot)
            newest = snapshot.landed_last
            scopes = scopes_of_file(newest) if newest else _NO_SCOPES
            if snapshot.rows_of(files_with(snapshot, scopes)) > _MOST_READ_AHEAD:
                return
            if len(scopes) and self._load_or_forget(scopes, scopes, snapshot):
                # Looking for nothing makes the bitmap.
                self._known.contain(_NO_KEYS)
        except StoreUnavailableError as error:
            # The batch itself will ask again.
            log.warning("identities were not read ahead: %s", error)

    def add(self, keys: Keys, *, of: Iterable[str] = ()) -> None:
        """Identities that were committed: those of the files `of`, which need not be read then."""
        self._seen.update(of)
        if not self._hold(keys):
            self.clear()

    def clear(self) -> None:
        """Forget everything; the next batch reads what it needs."""
        self._known.clear()
        self._scopes = _NO_SCOPES

    def _hold(self, keys: Keys) -> bool:
        """Whether there was room for some more."""
        if len(self) + len(keys) > self._limit:
            return False
        self._known.add(keys)
        return not self._known.full

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

    def _load_or_forget(self, missing: Scopes, wanted: Scopes, snapshot: Snapshot) -> bool:
        # What was too much stays too much, and is not read to find that out again.
        if len(self._too_many) and np.isin(self._too_many, wanted).all():
            self.clear()
            return False
        alone = not len(self)
        if self._load(missing, snapshot):
            return True
        full = self._known.full
        self.clear()
        if not alone:
            if self._load(wanted, snapshot):
                return True
            full = self._known.full
            self.clear()
        # Where they would need files that are refused, there may be room next time.
        if not full:
            self._too_many = wanted
        return False

    def _load(self, scopes: Scopes, snapshot: Snapshot) -> bool:
        try:
            for keys in self.read(files_with(snapshot, scopes), scopes):
                if not self._hold(keys):
                    return False
        except BaseException:
            # What was read of the scopes would be read again, and held twice.
            self.clear()
            raise
        self._scopes = np.union1d(self._scopes, scopes)
        return True

    def _search_files(self, keys: Keys, scopes: Scopes, snapshot: Snapshot) -> Mask:
        # What a file has of 200,000 keys: 5 ms for a million of its identities with a bitmap of the
        # keys, 10 by searching the file for each key.
        ordered = SortedKeys.of(keys)
        asked = MaybeKnown(max(1, _BYTES_PER_KEY * len(keys)))
        asked.add(ordered.high)
        matches = [keys.take(np.empty(0, np.int64))]
        for found in self.read(files_with(snapshot, scopes), scopes):
            near = found.take(np.flatnonzero(asked.has(found.high)))
            matches.append(near.take(ordered.contains(near)))
        high, low = (np.concatenate(words) for words in zip(*matches, strict=True))
        return SortedKeys.of(Keys(high, low)).contains(keys)

    def read(self, paths: list[str], scopes: Scopes | None = None) -> Iterator[Keys]:
        """Identities of files of the table, of the scopes or of all."""
        columns = ["source_id", self._id_column, "dedup_scope"]
        wanted = None if scopes is None else np.sort(scopes)

        def keys_of(path: str) -> list[Keys]:
            kept = self._files.read(path, wanted) if self._files else None
            if kept is not None:
                return [MappedKeys(kept.high, kept.low) if kept.mapped else Keys(*kept[:2])]
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


def scopes_of_file(path: str) -> Scopes:
    """The different scopes of a data file's rows."""
    batches = read_batches(path, ["dedup_scope"])
    columns = [batch.column(0).to_numpy(zero_copy_only=False) for batch in batches]
    return np.unique(np.concatenate([_NO_SCOPES, *columns]))


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
