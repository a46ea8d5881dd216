"""What cannot be merged keeps nothing else from being merged."""

from __future__ import annotations

import os
import threading
from datetime import date
from pathlib import Path

import duckdb
import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, TABLES
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake import rewrite
from dc_platform.lake.parquet import DataFile, read_batches
from dc_platform.lake.rewrite import Cancellation, UnreadableError, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing import compaction
from dc_platform.landing.compaction_failures import FailedFiles
from dc_platform.landing.compaction_plan import LiveFile
from dc_platform_tests.helpers.compaction import (
    CLOSED,
    OPEN,
    compact_all,
    compactor,
    merge,
    rows,
    snapshot,
)
from dc_platform_tests.helpers.lake import DAY, silver_row, write_silver
from dc_platform_tests.helpers.landing import batch, committer, lines
from dc_platform_tests.helpers.records import block


@pytest.fixture
def silver(lake: Lake) -> Lake:
    lake.ensure(SILVER_EVENTS)
    return lake


def large(lake: Lake, count: int, payload_bytes: int, first: int = 0) -> DataFile:
    """A file of rows with payloads that no compression makes smaller than half."""
    payloads = (os.urandom(payload_bytes // 2).hex() for _ in range(count))
    return write_silver(lake, [silver_row(first + n, payload=p) for n, p in enumerate(payloads)])


def merged(lake: Lake, files: list[DataFile]) -> DataFile:
    paths = [file.path for file in files]
    return merge_files(lake, SILVER_EVENTS, paths, DAY, ordered=True, cancelled=Cancellation())


def commit(lake: Lake, files: list[DataFile]) -> LakeTable:
    table = LakeTable(lake, SILVER_EVENTS)
    table.commit(files, txns={}, exact=True)
    return table


def test_rows_too_large_to_sort_are_merged_as_they_come(silver: Lake) -> None:
    files = [large(silver, 300, 32 * 1024, n * 300) for n in (2, 1, 0)]
    table = commit(silver, files)
    made = merged(silver, files)
    assert table.rewrite([file.path for file in files], made, metadata={}) is not None
    # It is of a closed hour all the same: it is not merged again.
    assert Path(made.path).name.startswith(rewrite.SORTED)
    assert made.rows == 3 * 300


def test_a_sort_without_memory_merges_as_they_come(
    silver: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "SORT_MEMORY_MB", 8)
    monkeypatch.setattr(rewrite, "_SORT_ROWS", 1)
    files = [large(silver, 100, 100_000, n * 100) for n in (1, 0)]
    table = commit(silver, files)
    before = rows(silver, SILVER_EVENTS)
    assert table.rewrite([f.path for f in files], merged(silver, files), metadata={}) is not None
    assert rows(silver, SILVER_EVENTS) == before


def damage(lake: Lake, file: str, how: str) -> None:
    path = Path(lake.uri_of(SILVER_EVENTS), file)
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])


hows = pytest.mark.parametrize("how", ["missing", "cut", "damaged"])


@hows
@pytest.mark.parametrize("ordered", [True, False])
def test_the_file_that_cannot_be_read_is_named(silver: Lake, how: str, ordered: bool) -> None:
    files = [large(silver, 50, 1_000, n * 50) for n in range(3)]
    damage(silver, files[1].path, how)
    with pytest.raises(UnreadableError) as raised:
        merge_files(
            silver,
            SILVER_EVENTS,
            [file.path for file in files],
            DAY,
            ordered=ordered,
            cancelled=Cancellation(),
        )
    assert raised.value.path == files[1].path
    there = {p.name for p in Path(silver.uri_of(SILVER_EVENTS)).glob("*/*.parquet")}
    assert there <= {Path(file.path).name for file in files}


@hows
@pytest.mark.parametrize("now", [OPEN, CLOSED])
def test_one_bad_file_stays_and_all_others_are_merged(lake: Lake, how: str, now: float) -> None:
    writer = committer(lake, (0,))
    for n in range(6):
        writer.land(batch([block(lines(n, n + 1), n)]))
    bad = snapshot(lake, SILVER_EVENTS).actions["path"][2].as_py()
    damage(lake, bad, how)
    compact_all(lake, writer, now=now)
    assert len(snapshot(lake, BRONZE_EVENTS).paths) == 1
    left = snapshot(lake, SILVER_EVENTS).actions["path"].to_pylist()
    assert len(left) == 2
    assert bad in left


def test_whatever_a_merge_raises_landing_goes_on(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = committer(lake, (0,))
    for n in range(6):
        writer.land(batch([block(lines(n, n + 1), n)]))

    def broken(*_: object, **__: object) -> DataFile:
        raise ValueError("nobody thought of this")

    monkeypatch.setattr(compaction, "merge_files", broken)
    made = compactor(lake, writer)
    while merge(made, writer):
        pass
    assert made.commits == 0
    monkeypatch.undo()
    monkeypatch.setattr(compaction, "live_files", broken)
    assert not merge(made, writer)
    made.close()


def test_a_cut_file_is_the_stores_fault_to_every_reader(silver: Lake) -> None:
    file = large(silver, 50, 1_000)
    damage(silver, file.path, "cut")
    path = f"{silver.uri_of(SILVER_EVENTS)}/{file.path}"
    with pytest.raises(StoreUnavailableError):
        list(read_batches(path, ["event_id"]))


def test_a_merge_that_was_cancelled_before_its_sort_never_sorts(silver: Lake) -> None:
    files = [large(silver, 5, 100, n * 5) for n in range(2)]
    cancelled = Cancellation()
    cancelled.cancel()
    with pytest.raises(StoreUnavailableError, match="cancelled"), cancelled.of(duckdb.connect()):
        raise AssertionError("a query that was begun")
    paths = [file.path for file in files]
    for ordered in (True, False):
        with pytest.raises(StoreUnavailableError, match="cancelled"):
            merge_files(silver, SILVER_EVENTS, paths, DAY, ordered=ordered, cancelled=cancelled)


def test_the_end_of_a_run_asks_until_the_sort_has_ended(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt that came just before the query began is forgotten by DuckDB."""
    writer = committer(lake, (0,))
    for n in range(6):
        writer.land(batch([block(lines(n, n + 1), n)]))
    asked = threading.Semaphore(0)

    def deaf_once(*_: object, **__: object) -> DataFile:
        assert asked.acquire(timeout=20)
        assert asked.acquire(timeout=20)
        raise StoreUnavailableError("cancelled")

    monkeypatch.setattr(compaction, "merge_files", deaf_once)
    monkeypatch.setattr(Cancellation, "cancel", lambda cancellation: asked.release())
    made = compactor(lake, writer)
    made._next_clean = float("inf")
    made.step(writer, behind=False)
    made.close()


def test_logs_are_cleaned_while_jobs_wait(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = committer(lake, (0,))
    for n in range(6):
        writer.land(batch([block(lines(n, n + 1), n)]))
    made = compactor(lake, writer)
    cleaned: list[str] = []
    monkeypatch.setattr(
        compaction, "expire_log", lambda lake, spec, keep: cleaned.append(spec.name)
    )
    made._next_look = made._next_clean = 0.0
    made.step(writer, behind=False)
    made.close()
    assert cleaned == [spec.name for spec in TABLES]


def test_pauses_grow_and_end() -> None:
    now = [0.0]
    failed = FailedFiles(lambda: now[0])
    files = [LiveFile(name, 1, date(2024, 5, 17), 0, 0) for name in ("a", "b")]

    def names() -> list[str]:
        return [file.path for file in failed.rest_of(files)]

    waited = []
    for _ in range(12):
        failed.add(["a"])
        begun = now[0]
        while names() == ["b"]:
            now[0] += 1
        assert names() == ["a", "b"]
        waited.append(now[0] - begun)
    assert waited[:3] == [10, 20, 40]
    assert waited[-1] == 3600
    # Long after it is as at first.
    now[0] += 2 * 3600
    failed.add(["b"])
    assert list(failed._pauses) == ["b"]
