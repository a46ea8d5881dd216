"""What is cleaned away is what nobody needs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import CommitConflictError, StoreUnavailableError
from dc_platform.lake.cleaning import clean, expire_log
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.rewrite import Cancellation, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import RETENTION, LakeTable
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.lake import DAY, read_table, silver_row, write_silver

HOUR = 3600
NO_KEYS = (np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path))
    made.ensure(SILVER_EVENTS)
    return made


def commit(lake: Lake, count: int, start: int = 0) -> list[DataFile]:
    table = LakeTable(lake, SILVER_EVENTS)
    files = []
    for n in range(start, start + count):
        files.append(write_silver(lake, [silver_row(n)]))
        table.commit(files[-1:], txns={"app": n}, exact=True)
    return files


def log_of(lake: Lake) -> list[str]:
    return sorted(p.name for p in Path(lake.uri_of(SILVER_EVENTS), "_delta_log").iterdir())


def merged(lake: Lake, files: list[DataFile]) -> DataFile:
    """`files` merged into one, and committed."""
    table = LakeTable(lake, SILVER_EVENTS)
    paths = [file.path for file in files]
    made = merge_files(lake, SILVER_EVENTS, paths, DAY, ordered=True, cancelled=Cancellation())
    assert table.rewrite(paths, made, metadata={}) is not None
    return made


def age(lake: Lake, path: str, seconds: float) -> None:
    at = time.time() - seconds
    os.utime(f"{lake.uri_of(SILVER_EVENTS)}/{path}", (at, at))


def test_the_log_keeps_the_newest_commits_and_a_checkpoint_before_them(lake: Lake) -> None:
    commit(lake, 50)
    old = LakeTable(lake, SILVER_EVENTS)
    assert expire_log(lake, SILVER_EVENTS, keep=15) > 0
    # Checkpoints are at 19 and 39; from 50 back, 15 commits begin at 35.
    assert log_of(lake)[0] == f"{19:020}.checkpoint.parquet"
    assert f"{19:020}.json" in log_of(lake)
    table = LakeTable(lake, SILVER_EVENTS)
    assert (table.version, table.txn("app"), table.snapshot().rows) == (50, 49, 50)
    assert len(table.history(2000)) == 32
    assert expire_log(lake, SILVER_EVENTS, keep=15) == 0
    # A writer that stood on the table meanwhile goes on.
    assert old.commit([], txns={"app": 77}, exact=True) == 51


def test_a_writer_whose_version_has_left_the_log_commits_at_the_second_try(lake: Lake) -> None:
    commit(lake, 1)
    old = LakeTable(lake, SILVER_EVENTS)
    commit(lake, 50, 1)
    assert expire_log(lake, SILVER_EVENTS, keep=5) > 0
    with pytest.raises(StoreUnavailableError):
        old.commit([], txns={"app": 77}, exact=True)
    assert (old.version, old.txn("app")) == (51, 50)
    assert old.commit([], txns={"app": 77}, exact=True) == 52


def test_a_log_without_a_checkpoint_stays(lake: Lake) -> None:
    commit(lake, 5)
    before = log_of(lake)
    assert expire_log(lake, SILVER_EVENTS, keep=1) == 0
    assert log_of(lake) == before


def test_a_replaced_file_stays_for_its_time(lake: Lake) -> None:
    files = commit(lake, 3)
    for file in files:
        age(lake, file.path, 48 * HOUR)
    pinned = LakeTable(lake, SILVER_EVENTS).snapshot()
    merged(lake, files)
    done = clean(lake, SILVER_EVENTS, keep=100)
    assert (done.files, done.live_files) == (0, 1)
    assert all(Path(path).exists() for path in pinned.paths)


def test_replaced_files_and_leftovers_go_when_they_are_old(lake: Lake) -> None:
    table = LakeTable(lake, SILVER_EVENTS)
    table.configure({RETENTION: "interval 1 seconds"})
    files = commit(lake, 3)
    orphan, fresh = (write_silver(lake, [silver_row(n)]) for n in (8, 9))
    for file in (*files, orphan):
        age(lake, file.path, 48 * HOUR)
    kept = merged(lake, files)
    expected = read_table(lake, SILVER_EVENTS)
    time.sleep(1.1)
    age(lake, fresh.path, -60)
    version = LakeTable(lake, SILVER_EVENTS).version
    done = clean(lake, SILVER_EVENTS, keep=100)
    assert (done.files, done.live_files) == (4, 1)
    assert done.bytes == sum(file.size for file in (*files, orphan))
    there = {p.name for p in Path(lake.uri_of(SILVER_EVENTS)).glob("*/*.parquet")}
    assert there == {Path(file.path).name for file in (kept, fresh)}
    assert read_table(lake, SILVER_EVENTS) == expected
    # Nobody's exact commit is in the way of it.
    assert LakeTable(lake, SILVER_EVENTS).version == version


def test_identities_go_with_their_data_file(lake: Lake) -> None:
    [file] = commit(lake, 1)
    for name in (file.path, "ingest_date=2024-05-17/part-gone.parquet"):
        IdentityFiles(lake, SILVER_EVENTS, b"m" * 16).write(name, *NO_KEYS)
    folder = Path(lake.uri_of(SILVER_EVENTS), "_identities")
    assert clean(lake, SILVER_EVENTS, keep=100).files == 0
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert clean(lake, SILVER_EVENTS, keep=100).files == 1
    assert [path.name for path in folder.iterdir()] == [f"{Path(file.path).name}.ids"]


def test_a_writer_that_was_frozen_does_not_commit_a_file_that_may_be_gone(lake: Lake) -> None:
    table = LakeTable(lake, SILVER_EVENTS)
    file = write_silver(lake, [silver_row(1)])
    LakeTable(lake, SILVER_EVENTS).configure({RETENTION: "interval 7200 seconds"})
    table.refresh()
    old = DataFile(
        file.path, file.size, file.rows, file.partition, file.stats, file.modified_ms - 3_700_000
    )
    with pytest.raises(CommitConflictError, match="long ago"):
        table.commit([old], txns={}, exact=True)
    assert table.commit([file], txns={}, exact=True)


def test_a_merged_file_is_in_the_order_of_its_table(lake: Lake) -> None:
    hour = 3_600_000_000
    rows = [
        silver_row(n, source_id=f"s{n % 3}", event_time=NOW * 1000 + (n % 2) * hour - n)
        for n in range(30)
    ]
    table = LakeTable(lake, SILVER_EVENTS)
    files = [write_silver(lake, rows[i : i + 5]) for i in range(0, 30, 5)]
    table.commit(files, txns={}, exact=True)
    merged(lake, files)
    [path] = LakeTable(lake, SILVER_EVENTS).snapshot().paths
    found = duckdb.sql(
        f"select date_trunc('hour', event_time), source_id, event_time from read_parquet('{path}')"
    ).fetchall()
    assert found == sorted(found)
    assert len(found) == 30


def test_files_whose_rows_are_not_all_there_are_not_replaced(lake: Lake) -> None:
    files = commit(lake, 3)
    table = LakeTable(lake, SILVER_EVENTS)
    some = merge_files(
        lake,
        SILVER_EVENTS,
        [files[0].path],
        DAY,
        ordered=False,
        cancelled=Cancellation(),
    )
    assert table.rewrite([file.path for file in files], some, metadata={}) is None
    assert table.rewrite([files[0].path, "gone.parquet"], some, metadata={}) is None
    assert LakeTable(lake, SILVER_EVENTS).snapshot().rows == 3
