"""A store that fails, or fails to answer: landed once, and no file that is live is removed."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.ops_tables import LANDING_BORDER
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.errors import CommitConflictError, FencedError, StoreUnavailableError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing import batch_commit
from dc_platform.landing import files as landing_files
from dc_platform.points import Point
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import (
    RECORDS,
    Pause,
    assert_landed_once,
    batch,
    committer,
    in_thread,
    land_again,
    lines,
)
from dc_platform_tests.helpers.records import block


class Ambiguous:
    """A store that fails at the commits of one table: before the log entry, or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spec: object, *, after: bool) -> None:
        self.failures = 0
        original = LakeTable.commit

        def commit(table: LakeTable, *args: Any, **more: Any) -> int:
            if table.spec is not spec or self.failures:
                return original(table, *args, **more)
            self.failures += 1
            if after:
                original(table, *args, **more)
                self.when_in_the_log()
            raise self.error()

        monkeypatch.setattr(LakeTable, "commit", commit)

    def when_in_the_log(self) -> None:
        pass

    def error(self) -> Exception:
        return StoreUnavailableError("the store did not answer")


DATA_TABLES = [BRONZE_EVENTS, SILVER_QUARANTINE, SILVER_EVENTS]
by_table = pytest.mark.parametrize("spec", DATA_TABLES, ids=lambda spec: spec.name)


@by_table
@pytest.mark.parametrize("conflict", [False, True])
def test_a_commit_that_failed_but_is_in_the_log_counts(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spec: object, conflict: bool
) -> None:
    writer = committer(lake)
    store = Ambiguous(monkeypatch, spec, after=True)
    if conflict:
        store.error = lambda: CommitConflictError("taken")  # type: ignore[method-assign]
    landed = writer.land(batch(RECORDS))
    assert store.failures == 1
    assert landed.landed == 6
    assert_landed_once(lake, RECORDS)
    writer.land(batch([block(lines(9), 4, partition=1)]))


@by_table
def test_a_commit_that_failed_is_tried_again_by_the_same_run(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spec: object
) -> None:
    writer = committer(lake)
    Ambiguous(monkeypatch, spec, after=False)
    with pytest.raises(StoreUnavailableError):
        writer.land(batch(RECORDS))
    writer.land(batch(RECORDS))
    assert_landed_once(lake, RECORDS)


@by_table
def test_a_commit_that_is_in_the_log_with_others_on_top_is_still_ours(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spec: object
) -> None:
    """No answer, and before we look a successor has landed more: our files are live, and stay."""
    writer = committer(lake, owner="slow")
    more = block(lines(20), 5)
    store = Ambiguous(monkeypatch, spec, after=True)

    def successor() -> None:
        land_again(lake, [*RECORDS, more], owner="successor")

    store.when_in_the_log = successor  # type: ignore[method-assign]
    with contextlib.suppress(FencedError):
        writer.land(batch(RECORDS))
    with pytest.raises(FencedError):
        writer.land(batch([more]))
    for table_spec in DATA_TABLES:
        table = LakeTable(lake, table_spec)
        assert all(Path(path).exists() for path in table.snapshot().paths)
    assert_landed_once(lake, [*RECORDS, more])


@by_table
@pytest.mark.parametrize("conflict", [False, True])
def test_a_commit_whose_entry_was_cleaned_away_counts(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spec: object, conflict: bool
) -> None:
    """The run was frozen for longer than the log is kept: the live file says that it is ours."""
    writer = committer(lake)
    store = Ambiguous(monkeypatch, spec, after=True)
    if conflict:
        store.error = lambda: CommitConflictError("taken")  # type: ignore[method-assign]
    monkeypatch.setattr(LakeTable, "history", lambda table, limit=None: [])
    assert writer.land(batch(RECORDS)).landed == 6
    assert store.failures == 1
    for table_spec in DATA_TABLES:
        assert all(Path(path).exists() for path in LakeTable(lake, table_spec).snapshot().paths)
    assert_landed_once(lake, RECORDS)


@by_table
def test_an_answer_that_never_comes(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spec: object
) -> None:
    """The commit is in the log, and the store stays away when the run wants to look."""
    writer = committer(lake)
    Ambiguous(monkeypatch, spec, after=True)
    original = LakeTable.refresh

    def refresh(table: LakeTable) -> int:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as away:
        away.setattr(LakeTable, "refresh", refresh)
        with pytest.raises(StoreUnavailableError):
            writer.land(batch(RECORDS))
    assert LakeTable.refresh is original
    land_again(lake, RECORDS)
    assert_landed_once(lake, RECORDS)


def test_a_conflict_removes_only_files_that_no_commit_has(lake: Lake) -> None:
    pause = Pause(Point.BRONZE_WRITTEN)
    slow = committer(lake, (0,), reached=pause)
    thread, result = in_thread(partial(slow.land, batch(RECORDS[:5])))
    assert pause.there.wait(60)
    land_again(lake, RECORDS[:5])
    pause.go.set()
    thread.join(60)
    assert isinstance(result[0], FencedError)
    files = list((Path(lake.uri) / "bronze" / "events").glob("*/*.parquet"))
    assert [str(file) for file in files] == LakeTable(lake, BRONZE_EVENTS).snapshot().paths


@pytest.mark.parametrize("spec", [BRONZE_EVENTS, SILVER_QUARANTINE], ids=lambda spec: spec.name)
def test_files_of_a_landing_that_failed_before_its_commits_are_removed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spec: TableSpec
) -> None:
    """Silver's file is written while bronze and quarantine are: each attempt leaves one."""
    writer = committer(lake)
    original = landing_files.write_file
    failed: list[int] = []

    def write_file(lake: Lake, of: TableSpec, *args: Any, **more: Any) -> Any:
        if of is spec and len(failed) < 3:
            failed.append(1)
            raise StoreUnavailableError("full")
        return original(lake, of, *args, **more)

    monkeypatch.setattr(landing_files, "write_file", write_file)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            writer.land(batch(RECORDS))
    writer.land(batch(RECORDS))
    writer.close()
    assert_landed_once(lake, RECORDS)
    for table in DATA_TABLES:
        root = Path(lake.uri_of(table))
        files = {str(file) for file in root.glob("*/*.parquet")}
        assert files == set(LakeTable(lake, table).snapshot().paths)
    identities = Path(lake.uri_of(SILVER_EVENTS)) / "_identities"
    assert len(list(identities.iterdir())) == 1


def test_a_border_that_cannot_be_written_stops_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(batch_commit, "write_border", fail)
    committer(lake).land(batch(RECORDS))
    assert_landed_once(lake, RECORDS)


def test_the_border_has_all_partitions_whoever_writes_it(lake: Lake) -> None:
    one, two = committer(lake, (0,)), committer(lake, (1,))
    one.land(batch(RECORDS[:5]))
    assert border(lake) == [(0, 5), (1, 0)]
    two.land(batch(RECORDS[5:]))
    assert border(lake) == [(0, 5), (1, 4)]
    one.land(batch([block(lines(9), 5)]))
    assert border(lake) == [(0, 6), (1, 4)]


def border(lake: Lake) -> list[tuple[Any, ...]]:
    return sorted(read_table(lake, LANDING_BORDER, "kafka_partition, next_offset"))
