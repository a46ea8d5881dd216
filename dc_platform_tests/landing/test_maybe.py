"""The bitmap never denies an identity that it was given, and mostly denies the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.landing.maybe import MaybeKnown

# Close together and far apart: neighbours share an octet, or the same bit.
WORDS = st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40).map(lambda n: n << 40), max_size=50)


def ordered(words: list[int]) -> np.ndarray:
    return np.sort(np.array(words, np.uint64))


@given(st.lists(WORDS, max_size=5), WORDS, st.integers(1, 5000), st.booleans())
def test_what_was_added_may_be_known(
    parts: list[list[int]], others: list[int], size: int, together: bool
) -> None:
    maybe = MaybeKnown(size)
    if together:
        maybe.add(*map(ordered, parts))
    else:
        for part in parts:
            maybe.add(ordered(part))
    added = [word for part in parts for word in part]
    assert maybe.has(np.array(added, np.uint64)).all()
    # Of as many stretches as there are bits: words of one cannot be told apart, others are.
    stretches = {(word >> 24) * 8 * size >> 40 for word in added}
    expected = [(word >> 24) * 8 * size >> 40 in stretches for word in others]
    assert maybe.has(np.array(others, np.uint64)).tolist() == expected


@pytest.mark.parametrize("size", [2**20, 3 * 2**20 + 1, 2**21])
def test_runs_that_are_added_together_are_all_there(size: int) -> None:
    """Larger than what is set at once, and not a multiple of it."""
    random = np.random.default_rng(3)
    runs = [ordered(random.integers(0, 2**64, rows, np.uint64)) for rows in (90_000, 50_001, 0, 7)]
    maybe, alone = MaybeKnown(size), MaybeKnown(size)
    maybe.add(*runs)
    for run in runs:
        alone.add(run)
        assert maybe.has(run).all()
        assert alone.has(run).all()
    others = random.integers(0, 2**64, 100_000, np.uint64)
    assert (maybe.has(others) == alone.has(others)).all()


@pytest.mark.parametrize(("bits", "most"), [(16, 0.065), (8, 0.125)])
def test_a_full_bitmap_still_denies_most_that_are_new(bits: int, most: float) -> None:
    random = np.random.default_rng(7)
    maybe = MaybeKnown(500_000 * bits // 8)
    for _ in range(5):
        maybe.add(ordered(random.integers(0, 2**64, 100_000, np.uint64)))
    assert maybe.has(random.integers(0, 2**64, 100_000, np.uint64)).mean() < most
