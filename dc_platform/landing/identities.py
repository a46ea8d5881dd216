"""Which identities a table already has: exact, for ever, in bounded memory.

An identity is 128 bits: a keyed mix of event id and source id, so that nobody can construct two
events that collide. Identities are held as sorted arrays (16 bytes each) and are looked up by binary
search, a whole batch at a time.

The table itself is the truth. Which part of it has to be in memory follows from the batch: only
events of the same `dedup_scope` can be retries of each other. A scope that is touched for the first
time is read from the table's files; past the memory limit all scopes are forgotten, and a batch
whose own scopes are too many is looked up in the files without keeping anything. Files that came
into the table since the last look-up, from whomever, are read before the next one.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dc_platform.lake.identity_files import IdentityFiles, Words
from dc_platform.lake.parquet import read_batches
from dc_platform.lake.table import Snapshot

U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Scopes = npt.NDArray[np.int64]

_BYTES_PER_IDENTITY = 16
_READERS = 2
_RUNS = 6
_LARGE = 1_000_000

_HYPHENS = (8, 13, 18, 23)
_DIGITS = np.array([i for i in range(36) if i not in _HYPHENS])
_NIBBLES = np.full(256, 255, np.uint8)
_NIBBLES[[ord(c) for c in "0123456789abcdef"]] = np.arange(16, dtype=np.uint8)


class Keys(NamedTuple):
    """128-bit identities as two columns."""

    high: U64
    low: U64

    @property
    def words(self) -> Words:
        """The same, as the lake keeps them."""
        return Words(self.high, self.low)

    def __len__(self) -> int:
        return len(self.high)

    def take(self, rows: npt.NDArray[np.int64] | Mask) -> Keys:
        """The identities of `rows`."""
        return Keys(self.high[rows], self.low[rows])


class KeyMaker:
    """Makes identities with a secret: whoever sends events cannot aim at another's identity.

    For a table the secret is the table's id, so that all its writers make the same.
    """

    def __init__(self, secret: str | None = None) -> None:
        self._secret = hashlib.blake2b((secret or secrets.token_hex()).encode()).digest()
        self.mark = hashlib.blake2b(self._secret, digest_size=16).digest()
        self._salts: dict[str | None, bytes] = {}

    def keys(self, source_ids: pa.ChunkedArray | pa.Array, ids: pa.ChunkedArray | pa.Array) -> Keys:
        """Identities of (source, id) pairs; ids are UUIDs in their usual form."""
        parts = _uuid_words(_as_array(ids, pa.string()))
        encoded = _as_dictionary(source_ids)
        salts = np.frombuffer(
            b"".join(self._salt(s) for s in encoded.dictionary.to_pylist()) or bytes(16), np.uint64
        ).reshape(-1, 2)
        rows = encoded.indices.fill_null(0).to_numpy()
        salt = salts[rows]
        if encoded.null_count:
            nulls = ~encoded.is_valid().to_numpy(zero_copy_only=False)
            salt[nulls] = np.frombuffer(self._salt(None), np.uint64)
        high = _mix(parts[:, 0] + salt[:, 0]) ^ parts[:, 1]
        low = _mix(parts[:, 1] + salt[:, 1]) ^ parts[:, 0]
        return Keys(_mix(high + salt[:, 1]), _mix(low + salt[:, 0]))

    def _salt(self, source_id: str | None) -> bytes:
        salt = self._salts.get(source_id)
        if salt is None:
            text = b"\0" if source_id is None else source_id.encode()
            salt = hashlib.blake2b(text, digest_size=16, key=self._secret).digest()
            if len(self._salts) > 1_000_000:
                self._salts.clear()
            self._salts[source_id] = salt
        return salt


def _mix(x: U64) -> U64:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014): every input bit moves every output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _uuid_words(ids: pa.Array) -> U64:
    """The 128 bits of UUID texts as two words each."""
    size = len(ids)
    if size == 0:
        return np.empty((0, 2), np.uint64)
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + size + 1]
    if ids.null_count or int(offsets[-1]) - int(offsets[0]) != 36 * size:
        raise ValueError("an id is not a UUID of 36 characters")
    text = np.frombuffer(ids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(size, 36)
    nibbles = _NIBBLES[text[:, _DIGITS]]
    octets = (nibbles[:, 0::2] << 4) | nibbles[:, 1::2]
    return np.ascontiguousarray(octets).view(np.uint64)


def _as_array(column: pa.ChunkedArray | pa.Array, type_: pa.DataType) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array if array.type == type_ else array.cast(type_)


def _as_dictionary(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


class _Run(NamedTuple):
    """Identities with each of their two words sorted on its own.

    An identity is in the run when both its words are. The words are independent, so two strangers
    that are taken for it need two coincidences of 64 bits each: 3e-21 with a thousand million
    identities in the run. Sorting words alone is five times faster than sorting pairs.
    """

    high: U64
    low: U64

    def contains(self, keys: Keys) -> Mask:
        """Which of `keys` are in the run."""
        found = _in_sorted(self.high, keys.high)
        hits = np.flatnonzero(found)
        if len(hits):
            found[hits] = _in_sorted(self.low, keys.low[hits])
        return found


def _in_sorted(values: U64, wanted: U64) -> Mask:
    if not len(values):
        return np.zeros(len(wanted), bool)
    # In order the look-ups walk through memory instead of jumping about in it.
    order = np.argsort(wanted)
    at = np.searchsorted(values, wanted[order])
    found = np.empty(len(wanted), bool)
    found[order] = values[np.minimum(at, len(values) - 1)] == wanted[order]
    return found


class _Identities:
    """A growing set of identities: a few runs, the smaller ones merged when there are too many."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(run.high) for run in self._runs)

    def add(self, *parts: Keys) -> None:
        parts = tuple(part for part in parts if len(part))
        if not parts:
            return
        self._runs.append(_run(parts))
        self._runs.sort(key=lambda run: len(run.high), reverse=True)
        if len(self._runs) > _RUNS:
            small = self._runs[_RUNS // 2 :]
            self._runs[_RUNS // 2 :] = [_run(small)]

    def contain(self, keys: Keys) -> Mask:
        found = np.zeros(len(keys), bool)
        for run in self._runs:
            found |= run.contains(keys)
        return found


def _run(parts: Sequence[Keys | _Run]) -> _Run:
    def word(name: str) -> U64:
        values: U64 = np.concatenate([getattr(part, name) for part in parts])
        values.sort()
        return values

    if sum(len(part.high) for part in parts) < _LARGE:
        return _Run(word("high"), word("low"))
    with ThreadPoolExecutor(2) as sorters:
        return _Run(*sorters.map(word, ("high", "low")))


def first_of_each(keys: Keys) -> Mask:
    """True for the first row of each identity."""
    first = np.ones(len(keys), bool)
    order = np.argsort(keys.high)
    high = keys.high[order]
    same = high[1:] == high[:-1]
    if not same.any():
        return first
    # Few rows share a word: only these are put into a stable order, by both words.
    shared = np.zeros(len(keys), bool)
    shared[1:] |= same
    shared[:-1] |= same
    rows = np.sort(order[shared])
    rows = rows[np.lexsort((keys.low[rows], keys.high[rows]))]
    low, high = keys.low[rows], keys.high[rows]
    first[rows[1:][(high[1:] == high[:-1]) & (low[1:] == low[:-1])]] = False
    return first


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
        self._known = _Identities()
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
        self._known = _Identities()
        self._scopes = np.empty(0, np.int64)

    def _follow(self, snapshot: Snapshot) -> None:
        """Read what others have added to the table since the last look-up."""
        if snapshot.version == self._version:
            return
        if len(self._scopes):
            for keys in self.read([path for path in snapshot.paths if path not in self._seen]):
                self.add(keys)
        self._seen = set(snapshot.paths)
        self._version = snapshot.version

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
        wanted = _Identities()
        wanted.add(keys)
        matches = _Identities()
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
                return [Keys(words.high, words.low) for words in kept]
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
