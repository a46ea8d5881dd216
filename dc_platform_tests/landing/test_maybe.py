"""The bitmap never denies an identity that it was given, and mostly denies the others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.landing.maybe import MaybeKnown

WORDS = st.lists(st.integers(0, 2**64 - 1), max_size=50)


@given(st.lists(WORDS, max_size=5), WORDS)
def test_what_was_added_may_be_known(parts: list[list[int]], others: list[int]) -> None:
    maybe = MaybeKnown(100)
    for part in parts:
        maybe.add(np.sort(np.array(part, np.uint64)))
    added = np.array([word for part in parts for word in part], np.uint64)
    assert maybe.has(added).all()
    # Twenty bits tell the others apart, unless they begin alike.
    leading = {word >> 44 for word in added.tolist()}
    expected = [word >> 44 in leading for word in others]
    assert maybe.has(np.array(others, np.uint64)).tolist() == expected


def test_a_full_bitmap_still_denies_most_that_are_new() -> None:
    random = np.random.default_rng(7)
    maybe = MaybeKnown(1_000_000)
    for _ in range(10):
        maybe.add(np.sort(random.integers(0, 2**64, 100_000, np.uint64)))
    assert maybe.has(random.integers(0, 2**64, 100_000, np.uint64)).mean() < 0.07
