"""Deadlines: who is late is interrupted, who is in time is not, and nobody who came after."""

from __future__ import annotations

import threading
import time

import duckdb
import pytest

from dc_platform.serving.guard import RefusedError
from dc_platform.serving.rows import Clock, Deadlines, QueryTimeoutError, _without_strange_types
from dc_platform_tests.stack.harness import wait_for


class Cursor:
    """Counts interrupts."""

    def __init__(self) -> None:
        self.interrupts = 0

    def interrupt(self) -> None:
        self.interrupts += 1


def clock(deadlines: Deadlines) -> tuple[Clock, Cursor]:
    cursor = Cursor()
    return Clock(cursor, deadlines), cursor  # type: ignore[arg-type]


def threads() -> int:
    return sum(thread.name == "deadlines" for thread in threading.enumerate())


def test_each_late_query_is_interrupted_once() -> None:
    deadlines = Deadlines(0.05)
    late = [clock(deadlines) for _ in range(3)]
    in_time, untouched = clock(deadlines)
    for each, _ in late:
        deadlines.begin(each)
    deadlines.begin(in_time)
    deadlines.end(in_time)
    wait_for(lambda: all(cursor.interrupts == 1 for _, cursor in late))
    assert untouched.interrupts == 0


def test_statements_of_a_query_end_together() -> None:
    deadlines = Deadlines(60)
    other, untouched = clock(deadlines)
    deadlines.begin(other)
    until = time.monotonic() + 0.05
    first, cursor = clock(deadlines)
    deadlines.begin(first, until)
    wait_for(lambda: cursor.interrupts == 1)
    deadlines.end(first)
    with pytest.raises(QueryTimeoutError, match="longer than 60 s"):
        deadlines.begin(clock(deadlines)[0], until)
    # A later one gives no more time than there is.
    deadlines.seconds = 0.05
    late, cursor = clock(deadlines)
    deadlines.begin(late, until + 3600)
    wait_for(lambda: cursor.interrupts == 1)
    deadlines.end(late)
    deadlines.end(other)
    assert untouched.interrupts == 0


def test_a_statement_that_began_after_the_interrupt_gets_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dc_platform.serving.rows._AGAIN_SECONDS", 0.01)
    deadlines = Deadlines(0.01)
    late, cursor = clock(deadlines)
    deadlines.begin(late)
    wait_for(lambda: cursor.interrupts >= 3)
    deadlines.end(late)


def test_its_thread_ends_and_comes_back() -> None:
    before = threads()
    deadlines = Deadlines(0.05)
    for _ in range(2):
        late, cursor = clock(deadlines)
        deadlines.begin(late)
        wait_for(lambda cursor=cursor: cursor.interrupts == 1)  # type: ignore[misc]
        deadlines.end(late)
        wait_for(lambda: threads() == before)


def test_a_type_that_is_nested_too_deeply_is_refused() -> None:
    type_ = duckdb.sqltype("bit")
    for _ in range(1000):
        type_ = duckdb.list_type(type_)
    with pytest.raises(RefusedError, match="nested"):
        _without_strange_types("select 1", [("c", type_)], "bignum")
