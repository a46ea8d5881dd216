"""Two runs at once, of other partitions or of the same: each event once, zombies are fenced."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from dc_platform.broker.records import TopicInfo
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import FencedError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import Batch, Gap, Range
from dc_platform.landing.rebuild import replay_bronze
from dc_platform.points import Point
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.landing import (
    INFO,
    POINTS,
    RECORDS,
    CrashError,
    Pause,
    assert_landed_once,
    batch,
    committer,
    crash_at,
    in_thread,
    land_again,
    lines,
    quarantine,
    reject,
    silver,
)
from dc_platform_tests.helpers.records import SOURCE, block, rejects_block


@pytest.mark.parametrize("pause_at", POINTS[:-1])
@pytest.mark.parametrize("first", ["duplicates only", "duplicates and rejects"])
def test_two_runs_of_different_partitions_with_the_same_id(
    lake: Lake, pause_at: str, first: str
) -> None:
    """Blueprint decision 4: both look up before either commits, and one row is left."""
    rejects = [rejects_block([reject(1)], 1, partition=p) for p in (0, 1)]
    one = [block(lines(1, 2), 0), rejects[0]]
    two = [block(lines(2, 3), 0, partition=1)]
    if first == "duplicates and rejects":
        two.append(rejects[1])
    pause = Pause(pause_at)
    slow = committer(lake, (0,), reached=pause, owner="slow")
    quick = committer(lake, (1,), owner="quick")
    thread, result = in_thread(partial(slow.land, batch(one)))
    assert pause.there.wait(60)
    quick.land(batch(two))
    pause.go.set()
    thread.join(60)
    assert result[0].landed == 1
    assert_landed_once(lake, [*one, *two])
    # Both go on, and know what the other has landed.
    assert slow.land(batch([block(lines(1, 2, 3, 4), 2)])).landed == 1
    assert (
        quick.land(batch([block(lines(1, 2, 3, 4, 5), 2, partition=1)], {1: (len(two), 3)})).landed
        == 1
    )
    assert len(silver(lake)) == 5


def test_both_paused_at_the_commit(lake: Lake) -> None:
    pauses = [Pause(Point.SILVER_WRITTEN), Pause(Point.SILVER_WRITTEN)]
    runs = [committer(lake, (p,), reached=pauses[p], owner=f"run-{p}") for p in (0, 1)]
    records = [block(lines(1, 2), 0), block(lines(1, 3), 0, partition=1)]
    batches = [batch([record]) for record in records]
    started = [in_thread(partial(runs[p].land, batches[p])) for p in (0, 1)]
    for pause in pauses:
        assert pause.there.wait(60)
    for pause in pauses:
        pause.go.set()
    for thread, _ in started:
        thread.join(60)
    assert sorted(result[0].landed for _, result in started) == [1, 2]
    assert_landed_once(lake, records)


def test_a_commit_of_another_run_that_came_with_our_own_refresh_is_not_overlooked(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a commit and the refresh after it there is room for another writer's commit."""
    one, two = committer(lake, (0,)), committer(lake, (1,))
    one.land(batch([block(lines(1), 0)]))
    original = LakeTable.refresh
    raced: list[int] = []

    def refresh(table: LakeTable) -> int:
        if table.spec is SILVER_EVENTS and not raced:
            raced.append(1)
            two.land(batch([block(lines(7), 0, partition=1)]))
        return original(table)

    monkeypatch.setattr(LakeTable, "refresh", refresh)
    one.land(batch([block(lines(2), 1)]))
    assert raced
    assert one.land(batch([block(lines(7, 8), 2)])).landed == 1
    assert sorted(silver(lake)) == sorted((SOURCE, some_uuid(n)) for n in (1, 2, 7, 8))


def test_the_same_reject_in_two_partitions_of_two_runs_is_kept_once(lake: Lake) -> None:
    one, two = committer(lake, (0,)), committer(lake, (1,))
    for round_ in range(3):
        one.land(batch([rejects_block([reject(round_)], round_)]))
        two.land(batch([rejects_block([reject(round_), reject(9)], round_, partition=1)]))
    one.land(batch([rejects_block([reject(9), reject(1)], 3)]))
    assert len(quarantine(lake)) == len(set(quarantine(lake))) == 4


@pytest.mark.parametrize("pause_at", POINTS[:-1])
@pytest.mark.parametrize("same_cut", [True, False])
def test_a_zombie_is_fenced(lake: Lake, pause_at: str, same_cut: bool) -> None:
    """A run that slept through its successor's commits wakes up at any point."""
    pause = Pause(pause_at)
    zombie = committer(lake, reached=pause, owner="zombie")
    thread, result = in_thread(partial(zombie.land, batch(RECORDS, {0: (0, 5), 1: (0, 4)})))
    assert pause.there.wait(60)
    successor = committer(lake, owner="successor")
    if same_cut:
        successor.land(batch(RECORDS, {0: (0, 5), 1: (0, 4)}))
    else:
        for start in range(5):
            part = [r for r in RECORDS if r.offset == start]
            ranges = {p: (start, start + 1) for p in (0, 1) if start < 5 - p}
            successor.land(batch(part, ranges))
    pause.go.set()
    thread.join(60)
    assert isinstance(result[0], FencedError)
    assert_landed_once(lake, RECORDS)
    successor.land(batch([block(lines(9), 5)]))
    with pytest.raises(FencedError):
        zombie.land(batch([block(lines(9), 5)]))
    assert_landed_once(lake, [*RECORDS, block(lines(9), 5)])


def test_a_zombie_that_wins_the_race_fences_its_successor(lake: Lake) -> None:
    pause = Pause(Point.SILVER_WRITTEN)
    successor = committer(lake, reached=pause, owner="successor")
    thread, result = in_thread(partial(successor.land, batch(RECORDS)))
    assert pause.there.wait(60)
    land_again(lake, RECORDS, owner="zombie")
    pause.go.set()
    thread.join(60)
    assert isinstance(result[0], FencedError)
    assert_landed_once(lake, RECORDS)


def test_what_a_successor_gave_up_is_not_landed_by_a_run_that_still_has_it(lake: Lake) -> None:
    """Kafka has deleted it meanwhile: it is in `ops.gaps`, and bronze goes on without it."""
    sleeper = committer(lake, (0,), owner="sleeper")
    rest = batch([block(lines(9), 5)])
    cut = Batch(rest.judged, {0: Range(0, 6)}, 0, gaps=[Gap(0, 0, 5)])
    with pytest.raises(CrashError):
        committer(lake, (0,), reached=crash_at(Point.AFTER_BRONZE)).land(cut)
    with pytest.raises(FencedError, match="Kafka had deleted"):
        sleeper.land(replace(batch(RECORDS[:5]), counted={}))
    assert silver(lake) == []
    following = committer(lake, (0,))
    for found in replay_bronze(lake, INFO, following, kafka_begins={0: 5}):
        following.land(found)
    assert following.offsets == {0: 6}
    assert silver(lake) == [(SOURCE, some_uuid(9))]


def test_a_batch_that_does_not_begin_where_silver_stands_is_refused(lake: Lake) -> None:
    writer = committer(lake)
    writer.land(batch(RECORDS[:1]))
    for start in (0, 2):
        with pytest.raises(FencedError):
            writer.land(batch([block(lines(9), 2)], {0: (start, 3)}))
    assert_landed_once(lake, RECORDS[:1])


def test_a_recreated_topic_starts_at_zero_beside_the_old_one(lake: Lake) -> None:
    committer(lake).land(batch(RECORDS[:1]))
    other = TopicInfo("events", "cluster-1", some_uuid(77), 2)
    again = committer(lake, info=other)
    assert again.offsets == {0: 0, 1: 0}
    again.land(batch([block(lines(1, 9), 0)]))
    assert len(silver(lake)) == 4
    assert committer(lake).offsets == {0: 1, 1: 0}
