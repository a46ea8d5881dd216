"""How much of the retention is used up, of every kind of partition."""

from __future__ import annotations

import pytest

from dc_platform.broker.retention import Held, Retention
from dc_platform.landing.retention import Risk, risk_of

HOUR = 3_600_000
NOW = 1_700_000_000_000
WEEK = Retention(168 * HOUR, None, False)
GIB = 2**30


def risk(
    border: int, held: Held, retention: Retention = WEEK, *, now_ms: int = NOW
) -> tuple[float, float | None, int]:
    found = risk_of(3, border, held, retention, now_ms)
    assert found.partition == 3
    left = None if found.hours_left is None else round(found.hours_left, 4)
    return round(found.used, 4), left, found.lost


@pytest.mark.parametrize("border", [10, 11])
def test_what_has_landed_may_be_deleted(border: int) -> None:
    assert risk(border, Held(0, 10, GIB, None)) == (0.0, None, 0)


def test_the_oldest_record_counts() -> None:
    assert risk(5, Held(0, 10, GIB, NOW - 42 * HOUR)) == (0.25, 126.0, 0)
    assert risk(5, Held(0, 10, GIB, NOW - 168 * HOUR)) == (1.0, 0.0, 0)


def test_a_record_of_the_future_is_no_older_than_now() -> None:
    assert risk(5, Held(0, 10, GIB, NOW + HOUR)) == (0.0, 168.0, 0)


def test_bytes_are_those_from_the_border_on() -> None:
    limit = Retention(None, 4 * GIB, False)
    # A quarter of the partition in two hours, and room for three times as much.
    assert risk(750, Held(0, 1000, 4 * GIB, NOW - 2 * HOUR), limit) == (0.25, 6.0, 0)


def test_the_nearer_limit_is_the_one_that_counts() -> None:
    both = Retention(168 * HOUR, 2 * GIB, False)
    assert risk(0, Held(0, 1000, GIB, NOW - 2 * HOUR), both) == (0.5, 2.0, 0)
    assert risk(0, Held(0, 1000, GIB // 100, NOW - 84 * HOUR), both) == (0.5, 84.0, 0)


def test_without_limits_nothing_is_deleted() -> None:
    forever = Retention(None, None, False)
    assert risk(0, Held(0, 10, GIB, NOW - 9999 * HOUR), forever) == (0.0, None, 0)


@pytest.mark.parametrize("oldest", [None, NOW])
def test_what_is_gone_already_is_the_whole_of_it(oldest: int | None) -> None:
    end = 10 if oldest is None else 20
    assert risk(4, Held(10, end, 0, oldest)) == (1.0, 0.0, 6)


def test_a_limit_of_zero_divides_nothing() -> None:
    found = risk_of(0, 0, Held(0, 10, GIB, NOW - 1), Retention(0, 0, False), NOW)
    assert found == Risk(0, 10, float(GIB), 0.0, 0)
