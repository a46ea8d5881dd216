"""Commits: a compare-and-swap when exact, one writer per app id otherwise, offsets with the files."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaError

from dc_platform.contracts.tables import SILVER_EVENTS, TABLES
from dc_platform.errors import CommitConflictError, StoreUnavailableError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import RETENTION, LakeTable, empty_select, sql_list, table_sql
from dc_platform_tests.helpers.lake import DAY, read_table, silver_row, write_silver
from dc_platform_tests.simulator.store import SimStore


@pytest.fixture(params=["delta-rs", "simulated"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    """The real one, and the one of the simulator: what holds here holds for both."""
    made = (
        Lake(str(tmp_path / "lake")) if request.param == "delta-rs" else SimStore(tmp_path).lake()
    )
    made.ensure(SILVER_EVENTS)
    return made


@pytest.fixture
def real_lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.ensure(SILVER_EVENTS)
    return made


def table(lake: Lake) -> LakeTable:
    return LakeTable(lake, SILVER_EVENTS)


def test_files_and_offsets_come_together(lake: Lake) -> None:
    writer = table(lake)
    files = [write_silver(lake, [silver_row(n) for n in range(s, s + 3)]) for s in (0, 3)]
    assert table(lake).snapshot().paths == []
    version = writer.commit(files, txns={"a/0": 3, "a/1": 6}, exact=True)
    assert version == writer.version == 1
    for reader in (writer, table(lake)):
        assert (reader.txn("a/0"), reader.txn("a/1"), reader.txn("a/2")) == (3, 6, None)
        assert reader.snapshot().rows == 6
        assert reader.snapshot().rows_by_partition() == {DAY.isoformat(): 6}
        assert reader.snapshot().bytes == sum(file.size for file in files)
    assert len(read_table(lake, SILVER_EVENTS)) == 6


@pytest.mark.parametrize("app", ["a", "b"])
def test_an_exact_commit_is_refused_when_the_table_moved(lake: Lake, app: str) -> None:
    first, second = table(lake), table(lake)
    first.commit([], txns={"a": 1}, exact=True)
    file = write_silver(lake, [silver_row()])
    with pytest.raises(CommitConflictError):
        second.commit([file], txns={app: 1}, exact=True)
    assert second.version == 0
    assert table(lake).snapshot().paths == []
    second.refresh()
    assert second.txn("a") == 1
    assert second.commit([file], txns={app: 2}, exact=True) == 2
    assert len(table(lake).snapshot().paths) == 1


def test_a_rebased_commit_passes_other_app_ids_and_refuses_its_own(lake: Lake) -> None:
    first, second, third = table(lake), table(lake), table(lake)
    first.commit([write_silver(lake, [silver_row(1)])], txns={"a": 1}, exact=False)
    second.commit([write_silver(lake, [silver_row(2)])], txns={"b": 1}, exact=False)
    with pytest.raises(CommitConflictError):
        third.commit([write_silver(lake, [silver_row(3)])], txns={"a": 2, "c": 1}, exact=False)
    assert (table(lake).txn("a"), table(lake).txn("b"), table(lake).txn("c")) == (1, 1, None)
    assert table(lake).snapshot().rows == 2


def test_a_refused_commit_leaves_the_snapshot_where_it_was(lake: Lake) -> None:
    first, second = table(lake), table(lake)
    first.commit([write_silver(lake, [silver_row(1)])], txns={"a": 1}, exact=True)
    for exact in (True, False):
        with pytest.raises(CommitConflictError):
            second.commit([write_silver(lake, [silver_row(2)])], txns={"a": 2}, exact=exact)
        assert (second.version, second.txn("a"), second.snapshot().paths) == (0, None, [])
    assert table(lake).version == 1


def test_a_rebased_commit_moves_the_snapshot_over_what_others_committed(lake: Lake) -> None:
    first, second = table(lake), table(lake)
    first.commit([write_silver(lake, [silver_row(1)])], txns={"a": 1}, exact=True)
    assert second.commit([], txns={"b": 7}, exact=False) == second.version == 2
    assert (second.txn("a"), second.txn("b")) == (1, 7)
    assert second.snapshot().paths == table(lake).snapshot().paths
    assert (first.version, first.txn("b")) == (1, None)
    assert first.refresh() == 2


def test_offsets_are_those_of_where_the_table_stands_however_it_got_there(real_lake: Lake) -> None:
    """Setting a property takes the handle along over what others have committed."""
    late, other = table(real_lake), table(real_lake)
    late.commit([], txns={"a": 100, "b": 1}, exact=True)
    assert late.txn("a") == 100
    other.refresh()
    other.commit([write_silver(real_lake, [silver_row(1)])], txns={"a": 200}, exact=True)
    late.configure({RETENTION: "interval 77 seconds"})
    assert late.version == 3
    assert (late.txn("a"), late.txn("b")) == (200, 1)
    late.commit([], txns={"b": 2}, exact=True)
    assert (late.txn("a"), late.txn("b")) == (200, 2)
    # Over others' commits, and over its own with theirs before it.
    other.refresh()
    other.commit([], txns={"a": 300}, exact=True)
    late.commit([], txns={"b": 3}, exact=False)
    assert (late.txn("a"), late.txn("b")) == (300, 3)


def test_an_offset_may_be_committed_lower_than_before(lake: Lake) -> None:
    """Delta does not compare them: callers do."""
    writer = table(lake)
    writer.commit([], txns={"a": 9}, exact=True)
    writer.commit([], txns={"a": 3}, exact=False)
    assert table(lake).txn("a") == 3


def test_a_rebased_commit_is_refused_when_files_were_replaced(lake: Lake) -> None:
    """Delta-rs takes an append for a read of the table."""
    writer, other = table(lake), table(lake)
    writer.commit([write_silver(lake, [silver_row(1)])], txns={}, exact=True)
    behind = table(lake)
    other.refresh()
    other.replace(DAY, [], metadata={"by": "other"})
    file = write_silver(lake, [silver_row(2)])
    with pytest.raises(CommitConflictError):
        behind.commit([file], txns={"a": 1}, exact=False)
    behind.refresh()
    behind.commit([file], txns={"a": 1}, exact=False)
    assert [row[0] for row in read_table(lake, SILVER_EVENTS, "kafka_offset")] == [2]


def test_a_history_has_what_came_after_the_snapshot_too(lake: Lake) -> None:
    """Landing relies on it: it looks for its own commit, and others may come meanwhile."""
    writer = table(lake)
    writer.commit([], txns={}, exact=True)
    behind = table(lake)
    for number in range(3):
        writer.commit([], txns={"a": number}, exact=True, metadata={"n": str(number)})
    assert [entry.get("n") for entry in writer.history(2)] == ["2", "1"]
    assert [entry["version"] for entry in writer.history()] == [4, 3, 2, 1, 0]
    assert behind.version == 1
    assert [entry.get("n") for entry in behind.history(1)] == ["2", "1", "0", None]
    assert len(behind.history()) == 5


def test_statistics_of_the_files_are_in_the_snapshot(lake: Lake) -> None:
    rows = [silver_row(n, dedup_scope=n * 10) for n in (1, 2)]
    table(lake).commit([write_silver(lake, rows)], txns={}, exact=True)
    low, high = table(lake).snapshot().bounds("dedup_scope")
    assert (low.to_pylist(), high.to_pylist()) == ([10], [20])
    assert low.type == high.type == pa.int32()


def test_the_snapshot_tells_what_landed_last_and_how_much(lake: Lake) -> None:
    writer = table(lake)
    assert (writer.snapshot().landed_last, writer.snapshot().rows_of([])) == (None, 0)
    first = write_silver(lake, [silver_row(n) for n in (1, 2)])
    later = replace(write_silver(lake, [silver_row(3)]), modified_ms=first.modified_ms + 1)
    writer.commit([later], txns={}, exact=True)
    writer.commit([first], txns={}, exact=True)
    found = writer.snapshot()
    assert found.landed_last == f"{lake.uri_of(SILVER_EVENTS)}/{later.path}"
    assert found.rows_of([path for path in found.paths if path != found.landed_last]) == 2
    assert found.rows_of(found.paths) == 3


def test_of_many_exact_commits_at_once_one_wins_each_version(lake: Lake) -> None:
    writers = [table(lake) for _ in range(6)]

    def commit(number: int) -> bool:
        try:
            writers[number].commit([], txns={str(number): 1}, exact=True)
        except CommitConflictError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        won = list(pool.map(commit, range(6)))
    assert sum(won) == 1
    newest = table(lake)
    assert newest.version == 1
    assert [newest.txn(str(number)) for number in range(6)] == [1 if w else None for w in won]


def test_offsets_outlive_checkpoints(real_lake: Lake) -> None:
    """Delta writes a checkpoint every 20 commits, and readers begin at it."""
    lake = real_lake
    writer = table(lake)
    writer.commit([], txns={"old": 7}, exact=True)
    follower = table(lake)
    for number in range(45):
        writer.commit([], txns={"new": number}, exact=True)
    log = Path(writer.uri) / "_delta_log"
    assert list(log.glob("*.checkpoint.parquet"))
    for reader in (table(lake), follower):
        reader.refresh()
        assert (reader.txn("old"), reader.txn("new")) == (7, 44)


def test_what_a_commit_says_of_itself_is_in_the_history(lake: Lake) -> None:
    ranges = {"0": [0, 17], "3": [5, 6]}
    table(lake).commit(
        [], txns={"a": 1}, exact=True, metadata={"dcp.ranges": json.dumps(ranges), "dcp.owner": "é"}
    )
    newest = table(lake).history(1)[0]
    assert json.loads(newest["dcp.ranges"]) == ranges
    assert newest["dcp.owner"] == "é"
    assert newest["version"] == 1


def test_replacing_a_day_leaves_other_days_and_the_offsets(lake: Lake) -> None:
    writer = table(lake)
    writer.commit([write_silver(lake, [silver_row(1)])], txns={"a": 9}, exact=True)
    writer.replace(DAY, [write_silver(lake, [silver_row(2), silver_row(3)])], metadata={"x": "y"})
    assert sorted(row[0] for row in read_table(lake, SILVER_EVENTS, "kafka_offset")) == [2, 3]
    assert table(lake).txn("a") == 9
    behind = table(lake)
    writer.commit([], txns={"a": 10}, exact=True)
    with pytest.raises(CommitConflictError):
        behind.replace(DAY, [], metadata={})


def test_a_table_that_is_missing_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match=r"silver\.events does not exist"):
        LakeTable(Lake(str(tmp_path / "none")), SILVER_EVENTS)


def test_a_broken_log_is_the_stores_fault(real_lake: Lake) -> None:
    lake = real_lake
    writer = table(lake)
    log = Path(writer.uri) / "_delta_log"
    (log / f"{1:020d}.json").write_text("{broken")
    with pytest.raises(StoreUnavailableError):
        writer.refresh()
    assert issubclass(DeltaError, Exception)


def test_tables_are_created_once_by_many(tmp_path: Path) -> None:
    def ensure(number: int) -> None:
        Lake(str(tmp_path / "lake")).ensure(TABLES[number % len(TABLES)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ensure, range(24)))
    for spec in TABLES:
        opened = LakeTable(Lake(str(tmp_path / "lake")), spec)
        assert opened.version == 0
        assert opened.snapshot().paths == []
        assert read_table(Lake(str(tmp_path / "lake")), spec) == []


def test_a_file_that_was_not_committed_can_be_removed(lake: Lake) -> None:
    file = write_silver(lake, [silver_row()])
    path = Path(lake.uri_of(SILVER_EVENTS)) / file.path
    assert path.exists()
    for _ in range(2):
        lake.remove(SILVER_EVENTS, file.path)
        assert not path.exists()


def test_sql_texts_are_quoted() -> None:
    assert sql_list(["a'b", "c"]) == "['a''b', 'c']"
    assert sql_list([]) == "[]"


@pytest.mark.parametrize("spec", TABLES, ids=lambda spec: spec.name)
def test_an_empty_table_has_the_types_of_a_full_one(spec: object, tmp_path: Path) -> None:
    import duckdb

    from dc_platform.contracts.tables import TableSpec
    from dc_platform.lake.parquet import write_file

    assert isinstance(spec, TableSpec)
    lake = Lake(str(tmp_path))
    lake.ensure(spec)
    opened = LakeTable(lake, spec)
    partition = DAY if spec.partition_by else None
    data = write_file(lake, spec, spec.file_schema.empty_table(), partition=partition)
    opened.commit([data], txns={}, exact=True)
    with duckdb.connect() as connection:
        described = [
            connection.execute(f"describe {sql}").fetchall()
            for sql in (table_sql(spec, opened.snapshot()), empty_select(spec.columns))
        ]
    assert [column[:2] for column in described[0]] == [column[:2] for column in described[1]]
