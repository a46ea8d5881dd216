"""Which files may have a row in some ranges of time: those that plain comparing finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.lake.ranges import EVER, NEVER, meeting, range_of

TIME = st.integers(0, 20) | st.sampled_from([NEVER, EVER])
PAIRS = st.lists(st.tuples(TIME, TIME))


@given(PAIRS, PAIRS)
def test_as_plain_comparing_finds(
    files: list[tuple[int, int]], ranges: list[tuple[int, int]]
) -> None:
    least, most = np.array(files, np.int64).reshape(-1, 2).T
    expected = [any(low <= last and high >= first for first, last in ranges) for low, high in files]
    assert meeting(least, most, ranges).tolist() == expected


def test_a_range_is_open_where_nothing_is_said() -> None:
    assert range_of(None, None) == (NEVER, EVER)
    assert range_of(1, 5) == (1, 4)
