"""Which hours are pending, and what is published of them."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dc_platform.contracts.gold import DBT_TABLES, EVENTS_HOURLY
from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.errors import CommitConflictError, StoreUnavailableError
from dc_platform.gold import run
from dc_platform.gold.pending import Pinned, epoch_day, is_pending, pending
from dc_platform.gold.run import keep_gold, rebuild_all, rebuild_hours
from dc_platform.lake.cleaning import expire_log
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.points import Point
from dc_platform_tests.gold.lakes import FIRST, LAST, delete, land, merge, new_lake, reject
from dc_platform_tests.gold.plain import counted as counted
from dc_platform_tests.gold.plain import hour_number
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.gold import expected, files, gold
from dc_platform_tests.helpers.lake import read_table, silver_row
from dc_platform_tests.helpers.landing import CrashError, Pause, crash_at, in_thread

pytestmark = pytest.mark.usefixtures("counted")


def at(number: int, hours: int = 0, **columns: object) -> dict[str, object]:
    return silver_row(number, event_time=(NOW + hours * HOUR) * 1000, **columns)


def beside(lake: Lake) -> Path:
    return Path(lake.uri).parent / "cache"


def keep(lake: Lake) -> run.Report:
    return keep_gold(lake, beside(lake))


def pending_hours(lake: Lake) -> set[int]:
    work = pending(Pinned(lake))
    assert is_pending(Pinned(lake)) == bool(work)
    assert work.days >= {hour // 24 for hour in work.hours}
    return {hour - hour_number(NOW) for hour in work.hours}


def test_what_came_and_what_left_is_pending(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    assert not is_pending(Pinned(lake))
    land(lake, [at(1), at(2, 3)])
    assert pending_hours(lake) == {0, 3}
    keep(lake)
    assert pending_hours(lake) == set()
    land(lake, [at(3, -1000)])
    land(lake, [at(4, 3)])
    assert pending_hours(lake) == {-1000, 3}
    keep(lake)
    delete(lake, lambda row: int(row["kafka_offset"]) == 4)
    assert pending_hours(lake) >= {3}
    keep(lake)
    assert gold(lake) == expected(lake)


def test_a_silver_that_lost_everything_empties_gold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(1)])
    keep(lake)
    delete(lake, lambda row: True)
    # Nothing is covered: gold alone says which hours there were.
    monkeypatch.setattr("dc_platform.gold.pending.models_hash", lambda: "others")
    assert pending_hours(lake) == {0}
    keep(lake)
    assert gold(lake) == expected(lake) == {spec.name: [] for spec in DBT_TABLES}
    assert not is_pending(Pinned(lake))


def test_compaction_is_no_news_and_hides_none(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(1)])
    keep(lake)
    merge(lake)
    assert not is_pending(Pinned(lake))
    land(lake, [at(2, 5)])
    path = LakeTable(lake, SILVER_EVENTS).snapshot().landed_last
    merge(lake)
    assert pending_hours(lake) == {5}
    # The landed file is gone from the disk: the merged one stands for it.
    assert path is not None
    Path(path).unlink()
    assert pending_hours(lake) == {0, 5}
    # That one, too, without a successor: everything.
    for merged in LakeTable(lake, SILVER_EVENTS).snapshot().paths:
        Path(merged).rename(merged + ".away")
    with pytest.raises(StoreUnavailableError):
        pending(Pinned(lake))


def test_a_log_that_does_not_reach_back_makes_everything_pending(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(0, -50)])
    keep(lake)
    for number in range(1, 45):
        land(lake, [at(number)])
    assert pending_hours(lake) == {0}
    expire_log(lake, SILVER_EVENTS, keep=1)
    assert pending_hours(lake) == {0, -50}
    assert keep(lake).everything
    assert gold(lake) == expected(lake)
    assert not is_pending(Pinned(lake))


def test_what_is_rejected_touches_its_day_alone(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(1)])
    keep(lake)
    reject(lake, [NOW - 48 * HOUR])
    work = pending(Pinned(lake))
    assert not work.hours
    assert work.days == {(NOW // HOUR - 48) // 24}
    keep(lake)
    assert gold(lake) == expected(lake)


def test_untouched_days_and_hours_keep_their_rows_and_files(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(1), at(2, 1), at(3, 48)])
    keep(lake)
    before = files(lake)
    land(lake, [at(4)])
    done = keep(lake)
    today = {epoch_day(datetime.fromtimestamp(NOW / 1000, UTC).date())}
    assert {spec.name: set(done.changed_days(spec.name)) for spec in DBT_TABLES} == dict.fromkeys(
        (spec.name for spec in DBT_TABLES), today
    )
    new = set(files(lake)) - set(before)
    assert len(new) == 3
    versions = dict(read_table(lake, EVENTS_HOURLY, "hour, silver_version"))
    assert [version for _, version in sorted(versions.items())] == [2, 1, 1]


def test_a_days_file_has_the_rows_of_a_source_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dc_platform.gold.publish.KEPT_GROUP_ROWS", 4)
    lake = new_lake(tmp_path)
    start = epoch_day(datetime.fromtimestamp(NOW / 1000, UTC).date()) * 24 - hour_number(NOW)
    land(lake, [at(n, start + n % 4, source_id=f"s{n % 3}") for n in range(12)])
    keep(lake)

    def groups() -> list[list[str]]:
        [path] = LakeTable(lake, EVENTS_HOURLY).snapshot().paths
        file = pq.ParquetFile(path)
        return [file.read_row_group(n)["source_id"].to_pylist() for n in range(file.num_row_groups)]

    assert groups() == [["s0"] * 4, ["s1"] * 4, ["s2"] * 4]
    before = files(lake)
    rebuild_hours(lake, beside(lake), hour_number(NOW) + start, hour_number(NOW) + start + 3)
    assert files(lake) == before
    land(lake, [at(12, start + 1, source_id="s1"), at(13, start + 9, source_id="s0")])
    keep(lake)
    assert groups() == [["s0"] * 4, ["s0", "s1", "s1", "s1"], ["s1", *["s2"] * 3], ["s2"]]
    assert gold(lake) == expected(lake)


def test_a_backfill_without_a_change_commits_nothing_and_covers_nothing(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(1)])
    keep(lake)
    land(lake, [at(2, 30)])
    before = files(lake)
    hour = hour_number(NOW)
    done = rebuild_hours(lake, beside(lake), hour - 2, hour + 2)
    assert done.hours == 1
    assert {p.version for of in done.tables.values() for p in of} == {None}
    assert files(lake) == before
    assert pending_hours(lake) == {30}
    # What is built by hand before its turn is found to be there.
    assert rebuild_hours(lake, beside(lake), hour + 30, hour + 30).rows > 0
    assert keep(lake).rows == 0
    assert not is_pending(Pinned(lake))


@pytest.mark.parametrize("point", [Point.GOLD_BUILT, Point.GOLD_WRITTEN, Point.GOLD_COMMITTED])
@pytest.mark.parametrize("table", [1, 2, 3])
def test_a_killed_run_is_repeated(tmp_path: Path, point: Point, table: int) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(1)])
    keep(lake)
    land(lake, [at(2), at(3, 30)])
    passed = iter(range(1, 10))

    def reached(name: str) -> None:
        if name == point and (point == Point.GOLD_BUILT or next(passed) == table):
            raise CrashError(name)

    with pytest.raises(CrashError):
        keep_gold(lake, beside(lake), reached=reached)
    # The tables that functions make come after those of dbt, and say what they cover, too.
    assert is_pending(Pinned(lake))
    done = keep(lake)
    assert gold(lake) == expected(lake)
    there = {Point.GOLD_BUILT: 0, Point.GOLD_WRITTEN: table - 1, Point.GOLD_COMMITTED: table}
    changed = [spec.name for spec in DBT_TABLES if done.changed_days(spec.name)]
    assert changed == [spec.name for spec in DBT_TABLES][there[point] :]


def test_the_slower_of_two_runs_begins_anew(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(1)])
    pause = Pause(Point.GOLD_WRITTEN)
    slow, result = in_thread(lambda: keep_gold(lake, beside(lake), reached=pause))
    assert pause.there.wait(60)
    land(lake, [at(2), at(3, 30)])
    keep(lake)
    pause.go.set()
    slow.join(60)
    assert isinstance(result[0], run.Report)
    assert gold(lake) == expected(lake)
    # It found nothing to change, and its own files are gone.
    live = {f"{s.name}/{p}" for s in DBT_TABLES for p in live_paths(lake, s)}
    assert set(files(lake)) == live
    assert not is_pending(Pinned(lake))


def live_paths(lake: Lake, spec: TableSpec) -> list[str]:
    paths: list[str] = LakeTable(lake, spec).snapshot().actions["path"].to_pylist()
    return paths


def test_a_reader_never_sees_half_an_hour(tmp_path: Path) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(n, n % 3, event_type=f"t{n % 5}") for n in range(30)])
    keep(lake)
    ended, seen = threading.Event(), set()

    def read() -> None:
        while not ended.is_set():
            rows = read_table(lake, EVENTS_HOURLY, "hour, row_count, silver_version")
            for hour in {row[0] for row in rows}:
                of_hour = [row for row in rows if row[0] == hour]
                seen.add((sum(r[1] for r in of_hour), len({r[2] for r in of_hour})))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for again in range(1, 6):
            land(lake, [at(100 * again + n, n % 3, event_type=f"t{n % 5}") for n in range(30)])
            keep(lake)
    finally:
        ended.set()
        reader.join(60)
    assert {versions for _, versions in seen} == {1}
    assert {rows for rows, _ in seen} <= {10 * n for n in range(1, 7)}
    assert len(seen) > 1


def test_too_many_conflicts_are_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = new_lake(tmp_path)
    land(lake, [at(1)])

    def refuse(*_: object, **__: object) -> None:
        raise CommitConflictError("taken")

    monkeypatch.setattr("dc_platform.gold.run.publish", refuse)
    with pytest.raises(CommitConflictError, match="another run was quicker"):
        keep(lake)


# What happens between runs of gold: landing (hours from now), rejects, compaction, deletion, a run of
# gold, one that is killed, all of it anew, a backfill of some hours.
_steps = st.one_of(
    st.tuples(st.just("land"), st.lists(st.sampled_from((0, 0, 1, 25, -30, -9000)), min_size=1)),
    st.tuples(st.just("wild"), st.sampled_from((FIRST, LAST, -1))),
    st.tuples(st.just("reject"), st.sampled_from((0, 25, -30))),
    st.tuples(st.just("merge"), st.none()),
    st.tuples(st.just("delete"), st.integers(0, 3)),
    st.tuples(st.just("gold"), st.none()),
    st.tuples(st.just("killed"), st.sampled_from((Point.GOLD_WRITTEN, Point.GOLD_COMMITTED))),
    st.tuples(st.just("anew"), st.none()),
    st.tuples(st.just("backfill"), st.integers(-31, 25)),
)


_sequences = st.lists(_steps, min_size=2, max_size=12)


@given(steps=_sequences)
@examples(max_examples=8)
def test_whatever_happens_gold_is_what_counting_gives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    play_all(new_lake(tmp_path_factory.mktemp("lake")), steps)


@pytest.mark.lakehouse
@given(steps=_sequences)
@examples(max_examples=200)
def test_whatever_happens_gold_is_what_counting_gives_at_length(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]]
) -> None:
    play_all(new_lake(tmp_path_factory.mktemp("lake")), steps)


def play_all(lake: Lake, steps: list[tuple[str, object]]) -> None:
    for number, (step, given_) in enumerate(steps):
        play(lake, number, step, given_)
    keep(lake)
    assert gold(lake) == expected(lake)
    before = files(lake)
    assert not keep(lake).days
    assert rebuild_all(lake, beside(lake)).rows == 0
    assert files(lake) == before


def play(lake: Lake, number: int, step: str, given_: object) -> None:
    empty = not LakeTable(lake, SILVER_EVENTS).snapshot().rows
    if step == "land":
        assert isinstance(given_, list)
        land(lake, [at(number * 100 + n, hours) for n, hours in enumerate(given_)])
    elif step == "wild":
        assert isinstance(given_, int)
        land(lake, [silver_row(number * 100, event_time=given_ * 1000)])
    elif step == "reject":
        assert isinstance(given_, int)
        reject(lake, [NOW + given_ * HOUR])
    elif step == "merge" and not empty:
        merge(lake)
    elif step == "delete" and not empty:
        delete(lake, lambda row: int(row["kafka_offset"]) % 4 == given_)
    elif step == "gold":
        keep(lake)
    elif step == "killed":
        assert isinstance(given_, Point)
        with suppress(CrashError):
            keep_gold(lake, beside(lake), reached=crash_at(given_))
    elif step == "anew":
        rebuild_all(lake, beside(lake))
    elif step == "backfill":
        assert isinstance(given_, int)
        hour = hour_number(NOW) + given_
        rebuild_hours(lake, beside(lake), hour - 1, hour + 1)
