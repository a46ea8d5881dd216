"""The newest rows in memory: the same rows as in the files, of exactly the files that a view has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.rewrite import Cancellation, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.serving.guard import RefusedError
from dc_platform.serving.recent import Held, RecentRows, young
from dc_platform.serving.view import View
from dc_platform_tests.helpers.landing import batch, committer
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.serving import Served, chunk, view
from dc_platform_tests.serving.conftest import lines
from dc_platform_tests.stack.harness import wait_for


@pytest.fixture
def instance() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("set TimeZone = 'UTC'")
        yield connection


@pytest.fixture
def recent(
    instance: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RecentRows]:
    monkeypatch.setattr("dc_platform.serving.recent._FEW_ROWS", 0)
    made = RecentRows(instance, memory_mb=16, share=0.5)
    yield made
    made.close()


def land(lake: Lake, start: int, stop: int) -> Snapshot:
    writer = committer(lake)
    writer.land(batch([block(lines(start, stop), start // 5)]))
    writer.close()
    return LakeTable(lake, SILVER_EVENTS).snapshot()


def merge(lake: Lake, snapshot: Snapshot, *, ordered: bool) -> Snapshot:
    table = LakeTable(lake, SILVER_EVENTS)
    paths = snapshot.actions["path"].to_pylist()
    day = snapshot.actions["partition.ingest_date"].to_pylist()[0]
    one = merge_files(lake, SILVER_EVENTS, paths, day, ordered=ordered, cancelled=Cancellation())
    table.rewrite(paths, one, metadata={})
    return table.snapshot()


def has(recent: RecentRows, snapshot: Snapshot, files: int) -> bool:
    with recent.of(View(snapshot, {})) as held:
        return len(held.paths) == files


def rows(instance: duckdb.DuckDBPyConnection, seen: View, held: Held) -> list[tuple[object, ...]]:
    sql = seen.union_sql(held=held)
    with instance.cursor() as cursor:
        cursor.register("tail", seen.tail)
        return cursor.execute(f"select * from ({sql}) order by event_id").fetchall()


def test_rows_are_those_of_the_files_of_each_version(
    tmp_path: Path, instance: duckdb.DuckDBPyConnection, recent: RecentRows
) -> None:
    lake = Lake(str(tmp_path))
    versions = [land(lake, start, start + 5) for start in (0, 5, 10)]
    wait_for(lambda: has(recent, versions[-1], 3))
    for number, snapshot in enumerate(versions, 1):
        seen = View(snapshot, {})
        with recent.of(seen) as held:
            assert len(held.paths) == number
            assert "read_parquet" not in seen.union_sql(held=held)
            found = rows(instance, seen, held)
        assert found == rows(instance, seen, Held())
        assert len(found) == 5 * number


def test_a_query_keeps_what_compaction_took_away(
    tmp_path: Path, instance: duckdb.DuckDBPyConnection, recent: RecentRows
) -> None:
    lake = Lake(str(tmp_path))
    old = [land(lake, start, start + 5) for start in (0, 5)][-1]
    wait_for(lambda: has(recent, old, 2))
    merged = merge(lake, old, ordered=False)
    with recent.of(View(old, {})) as held:
        wait_for(lambda: has(recent, merged, 1))
        # Closed hours are not kept, and that leaves more dead rows than live ones.
        closed = merge(lake, merged, ordered=True)
        wait_for(lambda: has(recent, closed, 0) and has(recent, merged, 0))
        assert len(rows(instance, View(old, {}), held)) == 10
    newest = land(lake, 10, 15)
    wait_for(lambda: has(recent, newest, 1))
    tables = "select count(*) from duckdb_tables() where database_name = 'recent'"
    latest = land(lake, 15, 20)
    wait_for(lambda: has(recent, latest, 2))
    wait_for(lambda: instance.cursor().execute(tables).fetchall() == [(1,)])


def test_the_tail_is_there_once(
    tmp_path: Path, instance: duckdb.DuckDBPyConnection, recent: RecentRows
) -> None:
    lake = Lake(str(tmp_path))
    tails = [[block(lines(5, 8), 1)], [block(lines(8, 10), 2)]]
    seen = view(lake, [block(lines(0, 5), 0)], tails)

    def all_in_memory() -> bool:
        with recent.of(seen) as held:
            return held.tail and len(held.paths) == 1

    wait_for(all_in_memory)
    with recent.of(seen) as held:
        found = rows(instance, seen, held)
        assert found == rows(instance, seen, Held())
        assert len(found) == 10
        # Outside of a query's time range there is nothing to read.
        assert seen.union_sql(0, 1, held).endswith("where false")
    # A chunk that landing cut is another chunk: it is asked as it is until it has been copied.
    cut = View(seen.silver, seen.border, (seen.chunks[1], chunk([block(lines(6, 8), 1)])))
    with recent.of(cut) as held:
        assert not held.tail
    wait_for(lambda: holds_tail(recent, cut))
    with recent.of(cut) as held:
        assert len(rows(instance, cut, held)) == 9


def holds_tail(recent: RecentRows, seen: View) -> bool:
    with recent.of(seen) as held:
        return held.tail


@pytest.mark.parametrize("written", [False, True])
def test_what_fails_is_tried_again_and_never_there_twice(
    tmp_path: Path,
    instance: duckdb.DuckDBPyConnection,
    recent: RecentRows,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    written: bool,
) -> None:
    """No memory for Python, before rows were written or right after that."""
    monkeypatch.setattr("dc_platform.serving.recent._PAUSE", 0.01)
    write, failed = recent._write, []

    def once(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
        if sql.startswith("insert") and len(failed) < 2:
            failed.append(sql)
            if written:
                write(cursor, sql)
            raise MemoryError
        write(cursor, sql)

    monkeypatch.setattr(recent, "_write", once)
    seen = view(Lake(str(tmp_path)), [block(lines(0, 5), 0)], [[block(lines(5, 8), 1)]])
    wait_for(lambda: holds_tail(recent, seen) and has(recent, seen.silver, 1))
    assert len(failed) == len(caplog.records) == 2
    with recent.of(seen) as held:
        assert rows(instance, seen, held) == rows(instance, seen, Held())


def test_a_copy_that_fails_leaves_nothing(
    tmp_path: Path,
    instance: duckdb.DuckDBPyConnection,
    recent: RecentRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dc_platform.serving.recent._PAUSE", 0.01)
    lake = Lake(str(tmp_path))
    old = [land(lake, start, start + 5) for start in (0, 5)][-1]
    wait_for(lambda: has(recent, old, 2))
    write, failed = recent._write, []

    def thrice(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
        if " select * from recent." in sql and len(failed) < 3:
            failed.append(sql)
            raise duckdb.OutOfMemoryException("no memory")
        write(cursor, sql)

    monkeypatch.setattr(recent, "_write", thrice)
    dead = chunk([block(lines(20, 40), 9)])
    newest = View(merge(lake, old, ordered=False), {}, (dead,))
    wait_for(lambda: holds_tail(recent, newest))
    # Two dead files and a dead chunk are more than what is live.
    later = View(newest.silver, {}, (chunk([block(lines(60, 61), 99)]),))
    wait_for(lambda: holds_tail(recent, later) and len(failed) == 3)
    tables = "select count(*) from duckdb_tables() where database_name = 'recent'"
    wait_for(lambda: instance.cursor().execute(tables).fetchall() == [(1,)])
    with recent.of(later) as held:
        assert rows(instance, later, held) == rows(instance, later, Held())


def test_a_query_after_the_end_reads_the_files(tmp_path: Path, recent: RecentRows) -> None:
    seen = View(land(Lake(str(tmp_path)), 0, 5), {})
    recent._thread.shutdown()
    assert has(recent, seen.silver, 0)
    recent.close()
    assert has(recent, seen.silver, 0)


def test_memory_is_bounded(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    snapshot = [land(lake, start, start + 5) for start in (0, 5, 10)][-1]
    newest = snapshot.landed_last
    sizes = dict(zip(snapshot.paths, snapshot.actions["size_bytes"].to_pylist(), strict=True))
    assert newest is not None
    assert young(snapshot, 2 * sizes[newest]) == {newest: 5}
    assert young(snapshot, 2**30).keys() == set(snapshot.paths)
    assert list(young(snapshot, 2**30))[-1] == newest
    assert young(snapshot, 0) == {}


def test_queries_find_it_and_people_do_not(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.view = View(land(served.lake, 0, 5), {})
    count = "select count(*) as n from events"
    assert served.sql(count) == [(5,)]

    assert served.sql(count, tenant="other") == [(0,)]
    for name in ("recent_1", "rows_1", "recent.rows_1", "recent.main.rows_1", "main.rows_1"):
        with pytest.raises(RefusedError):
            served.sql(f"select * from {name}")
    served.engine.close()
