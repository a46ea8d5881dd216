"""Ranges of time [from, to], in epoch microseconds, and which files may have rows in them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

# Before and after all times.
NEVER, EVER = -(2**62), 2**62
Times = npt.NDArray[np.int64]


def range_of(from_us: int | None, to_us: int | None) -> tuple[int, int]:
    """[from, to), where None is open, as a range."""
    return NEVER if from_us is None else from_us, EVER if to_us is None else to_us - 1


def meeting(least: Times, most: Times, ranges: Iterable[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Which of the files, by their earliest and latest times, may have one in one of the ranges."""
    ordered = sorted(ranges)
    if not ordered:
        return np.zeros(len(least), bool)
    begins, ends = np.array(ordered, np.int64).T
    # Of the ranges that do not end before the file begins the one that begins first.
    place = np.searchsorted(np.maximum.accumulate(ends), least)
    some = place < len(ordered)
    found: npt.NDArray[np.bool_] = some & (begins[np.minimum(place, len(ordered) - 1)] <= most)
    return found
