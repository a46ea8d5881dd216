"""Sketches of numbers, for quantiles: Apache DataSketches' KLL form for doubles.

The library's KLL drops items by coin toss and its generator cannot be seeded, so its bytes differ
from run to run. Gold has all values of an hour at once: they are sorted, and of each run of 2^h values
the middle one stays, with weight 2^h. That is a KLL sketch like any other (Java, C++ and Python read
it), always the same, and nearer to the truth: a rank is wrong by at most half a run.

Sketches are merged by asking all their items together, so merging adds no error.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from dc_platform.gold.sketches import SketchError

# Runs of 2^h values with at most K runs: each has less than 2/K of the values.
K = 512
RANK_ERROR = 1 / K
_M = 8
_FAMILY = 15
_EMPTY, _SINGLE = 1, 4
_HEADER = struct.Struct("<4BHBB")
_SIZES = struct.Struct("<QHBB")
_MAX_LEVELS = 44


def quantiles_of(values: np.ndarray) -> bytes:
    """The sketch of finite doubles, in any order."""
    ordered = np.sort(values.astype("<f8", copy=False)) + 0.0  # -0.0 becomes 0.0
    total = len(ordered)
    if total == 0:
        return _HEADER.pack(2, 1, _FAMILY, _EMPTY, K, _M, 0)
    if total == 1:
        return _HEADER.pack(2, 2, _FAMILY, _SINGLE, K, _M, 0) + ordered.tobytes()
    top = 0
    while total >> top > K:
        top += 1
    levels: list[np.ndarray] = [ordered[:0]] * (top + 1)
    runs = total >> top
    levels[top] = ordered[(np.arange(runs) << top) + ((1 << top) >> 1)]
    # What is left over at the upper end: one run for each bit, the longest first.
    at = runs << top
    for level in range(top - 1, -1, -1):
        if total >> level & 1:
            levels[level] = ordered[at + ((1 << level) >> 1) :][:1]
            at += 1 << level
    return _packed(levels, total, ordered[0], ordered[-1])


def _packed(levels: Sequence[np.ndarray], total: int, low: float, high: float) -> bytes:
    sizes = [len(level) for level in levels]
    first = _capacity(K, len(levels)) - sum(sizes)
    starts = np.cumsum([first, *sizes[:-1]]).astype("<u4")
    return b"".join(
        [
            _HEADER.pack(5, 1, _FAMILY, 0, K, _M, 0),
            _SIZES.pack(total, K, len(levels), 0),
            starts.tobytes(),
            struct.pack("<2d", low, high),
            *(level.tobytes() for level in levels),
        ]
    )


def _capacity(k: int, levels: int) -> int:
    """Places of a sketch, as the library counts them: each level has 2/3 of the next one's."""
    total = 0
    for depth in range(levels):
        places = (((2 * k) << depth) // 3**depth + 1) >> 1
        total += max(_M, places)
    return total


def quantiles(blobs: Sequence[bytes], ranks: Sequence[float]) -> list[float] | None:
    """The values at some ranks (0 to 1) of all values that the sketches saw; None when none saw any.

    A rank is wrong by at most 1/512 of the values (RANK_ERROR); 0 and 1 are exact.
    """
    if any(not 0 <= rank <= 1 for rank in ranks):
        raise SketchError("a rank is a number from 0 to 1: 0.99 for the 99th percentile")
    parts = []
    for blob in blobs:
        part = _parsed(blob)
        if len(part[0]):
            parts.append(part)
    if not parts:
        return None
    items = np.concatenate([part[0] for part in parts])
    order = np.argsort(items, kind="stable")
    # Exact in doubles: below 2^53.
    reached = np.cumsum(np.concatenate([part[1] for part in parts])[order])
    low, high = min(part[2] for part in parts), max(part[3] for part in parts)
    found = []
    for rank in ranks:
        at = int(np.searchsorted(reached, rank * reached[-1]))
        inner = float(items[order[min(at, len(items) - 1)]])
        found.append(low if rank == 0 else high if rank == 1 else inner)
    return found


def _parsed(blob: bytes) -> tuple[np.ndarray, np.ndarray, float, float]:
    """(items, weights, minimum, maximum); raises SketchError."""
    if len(blob) < 8 or blob[2] != _FAMILY or blob[1] not in (1, 2):
        raise SketchError("not a KLL sketch of Apache DataSketches")
    preamble, version, _, flags, k, m, _ = _HEADER.unpack_from(blob)
    damaged = SketchError("a damaged KLL sketch of doubles")
    if m != _M or k < _M:
        raise damaged
    if preamble == 2 and flags & _EMPTY and len(blob) == 8:
        return np.empty(0), np.empty(0), 0.0, 0.0
    if preamble == 2 and version == 2 and flags & _SINGLE and len(blob) == 16:
        items, weights = np.frombuffer(blob, "<f8", 1, 8), np.ones(1)
        low = high = float(items[0])
    else:
        if preamble != 5 or version != 1 or flags & (_EMPTY | _SINGLE) or len(blob) < 20:
            raise damaged
        items, weights, low, high = _parsed_levels(blob, k)
    if not np.isfinite(items).all() or not low <= items.min() or not items.max() <= high:
        raise damaged
    return items, weights, low, high


def _parsed_levels(blob: bytes, k: int) -> tuple[np.ndarray, np.ndarray, float, float]:
    damaged = SketchError("a damaged KLL sketch of doubles")
    total, _, count, _ = _SIZES.unpack_from(blob, 8)
    at = 20 + 4 * count
    if not 0 < count <= _MAX_LEVELS or len(blob) < at + 16:
        raise damaged
    ends = [*np.frombuffer(blob, "<u4", count, 20).tolist(), _capacity(k, count)]
    sizes = np.diff(ends)
    if (sizes < 0).any() or len(blob) != at + 16 + 8 * int(sizes.sum()):
        raise damaged
    weights = np.repeat(np.exp2(np.arange(count)), sizes)
    if not len(weights) or weights.sum() != total:
        raise damaged
    low, high = struct.unpack_from("<2d", blob, at)
    if not np.isfinite((low, high)).all():
        raise damaged
    return np.frombuffer(blob, "<f8", offset=at + 16), weights, low, high
