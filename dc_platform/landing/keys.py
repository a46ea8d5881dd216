"""Identities as 128-bit keys, a column of them at a time.

A key is a keyed mix of event id and source id, so that nobody who sends events can construct two that
collide.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_MERGED_PIECE = 65_536
_UUID_BYTES = 36
# So many rows stay in the processor's cache.
_PIECE = 8192


class Keys(NamedTuple):
    """128-bit identities as two columns."""

    high: U64
    low: U64

    def __len__(self) -> int:
        return len(self.high)

    def take(self, rows: npt.NDArray[np.int64] | Mask) -> Keys:
        """The identities of `rows`."""
        return Keys(self.high[rows], self.low[rows])


class SortedKeys(NamedTuple):
    """Identities in the order of their high words."""

    high: U64
    low: U64

    @classmethod
    def of(cls, keys: Keys) -> SortedKeys:
        """`keys` in order; those that are already are not copied."""
        if (keys.high[1:] >= keys.high[:-1]).all():
            return cls(keys.high, keys.low)
        return cls(*keys.take(np.argsort(keys.high, kind="stable")))

    def take(self, rows: slice) -> SortedKeys:
        """The identities of some rows, not copied."""
        return SortedKeys(self.high[rows], self.low[rows])

    def contains(self, keys: Keys) -> Mask:
        """Which of `keys` are among these; fastest when they are in order, too."""
        found = np.zeros(len(keys), bool)
        if not len(self.high):
            return found
        # What would stand behind the last is compared with the last, and differs.
        at = np.minimum(np.searchsorted(self.high, keys.high), len(self.high) - 1)
        rows = np.flatnonzero(self.high[at] == keys.high)
        at = at[rows]
        while len(rows):
            hit = self.low[at] == keys.low[rows]
            found[rows[hit]] = True
            # Another identity with the same high word may follow.
            rows, at = rows[~hit], at[~hit] + 1
            inside = at < len(self.high)
            rows, at = rows[inside], at[inside]
            same = self.high[at] == keys.high[rows]
            rows, at = rows[same], at[same]
        return found


class MappedKeys(Keys):
    """Identities in a file that is mapped: the kernel may drop them, and reads them again."""


def sliced(runs: Sequence[U64], count: int) -> Iterator[list[slice]]:
    """Cuts runs of high words, each in order, at the same `count` - 1 values: the rows of each.

    The words are as good as random numbers: the pieces are of about one size.
    """
    edges = np.array([(number << 64) // count for number in range(1, count)], np.uint64)
    cuts = [[0, *np.searchsorted(run, edges).tolist(), len(run)] for run in runs]
    for piece in range(count):
        yield [slice(cut[piece], cut[piece + 1]) for cut in cuts]


def merged(runs: Sequence[SortedKeys]) -> Iterator[SortedKeys]:
    """All identities of some runs in order, in pieces of about 64k, each in the processor's cache.

    It takes 30 ns for each identity.
    """
    rows = sum(len(run.high) for run in runs)
    for slices in sliced([run.high for run in runs], -(-rows // _MERGED_PIECE)):
        parts = [run.take(piece) for run, piece in zip(runs, slices, strict=True)]
        high, low = (np.concatenate(words) for words in zip(*parts, strict=True))
        # Stable is fast where sorted pieces stand one after the other: it merges them.
        order = np.argsort(high, kind="stable")
        yield SortedKeys(high[order], low[order])


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
    if ids.null_count or int(offsets[-1]) - int(offsets[0]) != _UUID_BYTES * size:
        raise ValueError("an id is not a UUID of 36 characters")
    text = np.frombuffer(ids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    words = np.empty((size, 2), np.uint64)
    for start in range(0, size, _PIECE):
        _read_words(text[_UUID_BYTES * start :], words[start : start + _PIECE])
    return words


def _read_words(text: npt.NDArray[np.uint8], words: U64) -> None:
    """The words of as many UUIDs as there is room for.

    Digits are read eight at a time, past the hyphens (at 8, 13, 18 and 23): an identity takes 50 ns,
    and took 100 when each digit was looked up.
    """

    def at(offset: int, kind: str) -> U64:
        strides = (_UUID_BYTES,)
        column: Any = np.ndarray((len(words),), kind, text, offset, strides)
        digits: U64 = np.asarray(column, np.uint64)
        return digits

    half = np.uint64(32)
    words[:, 0] = _octets(at(0, "<u8")) | _octets(at(9, "<u4") | at(14, "<u4") << half) << half
    words[:, 1] = _octets(at(19, "<u4") | at(24, "<u4") << half) | _octets(at(28, "<u8")) << half


def _octets(digits: U64) -> U64:
    """Eight hexadecimal digits, a byte each, as four octets; what comes first is lowest."""
    letters = (digits >> np.uint64(6)) & np.uint64(0x0101010101010101)
    nibbles = (digits & np.uint64(0x0F0F0F0F0F0F0F0F)) + letters * np.uint64(9)
    octets: U64 = nibbles << np.uint64(4) | nibbles >> np.uint64(8)
    for distance, kept in ((8, 0x00FF00FF00FF00FF), (16, 0x0000FFFF0000FFFF), (0, 0xFFFFFFFF)):
        octets &= np.uint64(kept)
        octets |= octets >> np.uint64(distance)
    return octets


def _as_array(column: pa.ChunkedArray | pa.Array, type_: pa.DataType) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array if array.type == type_ else array.cast(type_)


def _as_dictionary(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    if isinstance(column, pa.ChunkedArray):
        column = column.unify_dictionaries().combine_chunks()
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
