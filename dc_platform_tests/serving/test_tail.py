"""The tail on a real broker: each event is seen once, from its arrival on, whatever moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from dc_platform.backup.restore import restore_silver
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.moment import moment
from dc_platform.lake.table import LakeTable
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.tail import COUNT, Tailed, counts_since_first, polled
from dc_platform_tests.stack.harness import wait_for

pytestmark = pytest.mark.kafka
ONE = f"{COUNT} where event_id = '{some_uuid(1)}'"
LARGE = 4000


def spill_files(tail: Tailed) -> list[Path]:
    return list(tail.tail_directory.glob("tail-*.parquet"))


# --- each event once ---


def test_a_duplicate_of_a_landed_event_never_counts_twice(tailed: Callable[..., Tailed]) -> None:
    tail = tailed()
    tail.start()
    with polled(tail, ONE) as seen:
        tail.write(1)
        tail.wait_count(1)
        tail.land()
        # The tail has taken the duplicate when it shows what came after it.
        tail.write(1, 1)
        tail.write(2)
        tail.wait_count(2)
        tail.write(1, partition=1)
        tail.write(3, partition=1)
        tail.wait_count(3)
        tail.land()
        wait_for(lambda: seen[-1].version == tail.seen().version)
    assert counts_since_first(seen) == {1}
    assert tail.seen()[:2] == (3, 3)
    assert {one.version for one in seen} >= {seen[0].version, tail.seen().version}


@pytest.mark.parametrize("first", [0, 1])
def test_the_same_event_in_two_partitions_counts_once_while_one_of_them_has_landed(
    tailed: Callable[..., Tailed], first: int
) -> None:
    """The row that the tail holds is the one that does not land, and then the one that does."""
    tail = tailed()
    tail.start()
    with polled(tail, ONE) as seen:
        tail.write(1, partition=1 - first)
        tail.wait_count(1)
        tail.write(1, partition=first)
        tail.write(2, partition=first)
        tail.wait_count(2)
        tail.land_partition(0)
        assert tail.seen()[:2] == (2, 2)
        tail.land_partition(1)
    assert counts_since_first(seen) == {1}
    assert tail.seen()[:2] == (2, 2)
    assert tail.seen().tail_rows == 0


def test_counts_only_grow_while_events_arrive_and_land(tailed: Callable[..., Tailed]) -> None:
    tail = tailed(landing_file_mb=0.001, landing_freshness_seconds=0.1)
    tail.start()
    random = Random(1)
    stop, written = threading.Event(), set()
    lander = tail.lander()
    landing = threading.Thread(target=lander.run, args=[stop])
    with polled(tail) as seen:
        landing.start()
        for start in range(0, 600, 10):
            repeats = random.choices(range(start + 10), k=5)
            numbers = [*range(start, start + 10), *repeats]
            tail.write(*numbers, partition=random.randrange(2))
            written.update(numbers)
            if start % 100 == 90:
                # A quick machine would write everything before the first commit.
                before = seen[-1].version if seen else -1
                wait_for(lambda before=before: seen and seen[-1].version > before)
        tail.wait_count(len(written))
        wait_for(lambda: lander.totals.received == 900)
        stop.set()
        landing.join()
        tail.follow(lander.totals.silver_version)
    assert all(one.count == one.distinct for one in seen)
    assert all(before.count <= after.count for before, after in pairwise(seen))
    assert len({one.version for one in seen}) > 3
    assert any(one.tail_rows and one.count > one.tail_rows for one in seen)
    assert tail.seen()[:2] == (len(written), len(written))
    assert tail.seen().tail_rows == 0


def test_after_a_restore_the_tail_begins_anew_and_shows_each_event_once(
    tailed: Callable[..., Tailed],
) -> None:
    tail = tailed()
    tail.start()
    tail.write(1, 2)
    tail.land()
    then = tail.seen().version
    tail.write(2, 3)
    tail.land()
    tail.write(4)
    tail.wait_count(4)
    with polled(tail) as seen:
        restore_silver(tail.lake, moment(tail.lake, SILVER_EVENTS, then))
        restored = LakeTable(tail.lake, SILVER_EVENTS).version
        # What silver no longer has is the tail's again, and what it knew of silver is forgotten.
        wait_for(lambda: tail.seen() == (4, 4, True, restored, 2))
        tail.land()
        wait_for(lambda: tail.seen().tail_rows == 0)
    assert {(one.count, one.distinct) for one in seen} == {(4, 4)}


# --- bounds ---


def test_a_tail_that_spills_gives_the_same_answers(tailed: Callable[..., Tailed]) -> None:
    tail = tailed(tail_memory_mb=1)
    tail.start()
    # In partition 1 first: when 0 lands, rows of the other have to leave the spilled files.
    for start in range(0, 800, 50):
        tail.write(*range(start, start + 50), partition=1, size=LARGE)
    tail.wait_count(800)
    first = len(spill_files(tail))
    # And files with rows of both, of which one half lands. How many files depends on how much each
    # poll brings: one for each half, if the tail could not run before all of it was written.
    for start in range(0, 400, 25):
        tail.write(*range(400 + start, 425 + start), *range(800 + start, 825 + start), size=LARGE)
        tail.write(*range(1200 + start, 1225 + start), partition=1, size=LARGE)
    tail.wait_count(1600)
    assert tail.tail.view is not None
    assert 0 < first < len(spill_files(tail))
    assert sum(len(c.table or ()) for c in tail.tail.view.chunks) < 600
    numbers = "select sum(cast(payload ->> '$.n' as int)), count(distinct payload) from events"
    with polled(tail, numbers) as seen:
        for land in (lambda: tail.land_partition(0), tail.land):
            land()
            assert tail.seen()[:2] == (1600, 1600)
    assert {one[:2] for one in seen} == {(sum(range(1600)), 1600)}
    # Nobody refers to the files any more.
    wait_for(lambda: not spill_files(tail))


def test_a_full_tail_says_so_and_goes_on_when_events_have_landed(
    tailed: Callable[..., Tailed],
) -> None:
    tail = tailed(tail_memory_mb=1, tail_disk_mb=1)
    # More than two polls bring.
    for start in range(0, 960, 40):
        tail.write(*range(start, start + 40), size=10 * LARGE)
    tail.tail.start()
    # The files are there a moment before the view that has them.
    wait_for(lambda: tail.tail.view is not None and tail.tail.view.chunks and spill_files(tail))
    with polled(tail) as seen:
        full = tail.tail.view
        assert full is not None
        assert 0 < tail.seen(view=full).count < 960
        assert 0 < full.up_to_ms <= time.time() * 1000
        # All that it holds lands: it reads on, and is full again.
        tail.land_partition(0, end=max(chunk.spans[0][1] for chunk in full.chunks) + 1)
        wait_for(lambda: tail.seen().tail_rows)
        assert 0 < tail.seen().count < 960
        # Landing goes ahead of it: it skips what it has not read.
        tail.land()
        wait_for(lambda: any(one.complete for one in seen))
        tail.write(959, 960)
        tail.wait_count(961)
    assert not seen[0].complete
    # All was there before the tail began: a complete view has all of it.
    assert 960 in {one.count for one in seen if one.complete} <= {960, 961}
    assert all(one.count == one.distinct for one in seen)
    assert all(before.count <= after.count for before, after in pairwise(seen))


# --- where it begins, and what a query keeps ---


def test_a_tail_begins_where_landing_stands(tailed: Callable[..., Tailed]) -> None:
    tail = tailed()
    tail.write(1, 2)
    lander = tail.lander()
    lander.run(threading.Event(), until_caught_up=True)
    tail.write(2, 3)
    tail.start()
    assert tail.seen()[:2] == (3, 3)
    assert tail.seen().tail_rows == 1


def test_a_query_keeps_its_view_while_the_tail_moves_on(tailed: Callable[..., Tailed]) -> None:
    tail = tailed(tail_memory_mb=1)
    tail.start()
    for start in range(0, 500, 50):
        tail.write(*range(start, start + 50), size=LARGE)
    tail.write(1000, partition=1)
    tail.wait_count(501)
    held = tail.tail.view
    kept = spill_files(tail)
    assert held is not None
    assert kept
    assert held.tail_rows == 501
    tail.write(501)
    tail.wait_count(502)
    assert tail.seen(view=held)[:2] == (501, 501)
    tail.land()
    tail.write(*range(500, 600))
    tail.wait_count(601)
    assert spill_files(tail) == kept
    assert tail.seen(view=held) == (501, 501, True, held.silver.version, 501)
    assert tail.seen().tail_rows == 99
    del held
    wait_for(lambda: not spill_files(tail))
