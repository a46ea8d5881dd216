"""One slot compacts what all slots land, beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, TableSpec
from dc_platform.errors import FencedError, StoreUnavailableError
from dc_platform.lake.cleaning import expire_log
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.commits import Committer
from dc_platform_tests.helpers.compaction import (
    CLOSED,
    TABLES,
    compact_all,
    compactor,
    merge,
    rows,
    snapshot,
)
from dc_platform_tests.helpers.landing import assert_landed_once, batch, committer, lines
from dc_platform_tests.helpers.records import block

both = pytest.mark.parametrize("spec", [SILVER_EVENTS, BRONZE_EVENTS], ids=lambda spec: spec.name)


def land(writer: Committer, start: int, count: int, partition: int = 1) -> list[Any]:
    """One commit per record, of an event each."""
    records = [
        block(lines(100 * partition + n), n, partition=partition)
        for n in range(start, start + count)
    ]
    for record in records:
        writer.land(batch([record]))
    return records


def files(lake: Lake, spec: TableSpec) -> set[str]:
    there = Path(lake.uri_of(spec)).glob("*/*.parquet")
    return {str(path) for path in there}


def test_a_quiet_slot_compacts_what_the_others_land(lake: Lake) -> None:
    quiet, busy = committer(lake, (0,)), committer(lake, (1,))
    records = land(busy, 0, 6)
    compact_all(lake, quiet)
    for spec in (SILVER_EVENTS, BRONZE_EVENTS):
        assert len(snapshot(lake, spec).paths) == 1
    # Both go on; the quiet one knows what the other has landed.
    records += land(busy, 6, 2)
    again = block(lines(100, 105, 107, 1), 0)
    assert quiet.land(batch([again])).landed == 1
    assert_landed_once(lake, [*records, again])


def test_another_slots_commits_between_merge_and_commit_are_no_matter(lake: Lake) -> None:
    slow, busy = committer(lake, (0,)), committer(lake, (1,))
    records = land(busy, 0, 6)
    made = compactor(lake, slow)
    while merge(made, slow):
        records += land(busy, len(records), 1)
        if len(records) == 12:
            break
    made.close()
    assert made.commits >= 4
    compact_all(lake, slow)
    for spec in (SILVER_EVENTS, BRONZE_EVENTS):
        assert len(snapshot(lake, spec).paths) == 1
    assert_landed_once(lake, records)


class InBetween:
    """Something happens between the look of a rewrite and its commit, some times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spec: TableSpec, times: int) -> None:
        self.times = times
        original = LakeTable._swap

        def swap(table: LakeTable, *args: Any, **more: Any) -> int:
            if table.spec is spec and self.times:
                self.times -= 1
                self.happens()
            return original(table, *args, **more)

        monkeypatch.setattr(LakeTable, "_swap", swap)

    def happens(self) -> None:
        pass


@both
def test_a_commit_that_lost_a_race_is_tried_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spec: TableSpec
) -> None:
    writer, busy = committer(lake, (0,)), committer(lake, (1,))
    records = land(busy, 0, 6)
    race = InBetween(monkeypatch, spec, 3)
    race.happens = lambda: records.extend(land(busy, len(records), 1))  # type: ignore[method-assign]
    made = compactor(lake, writer)
    for _ in range(3):
        assert merge(made, writer)
    made.close()
    assert race.times == 0
    assert made.commits == 2
    assert_landed_once(lake, records)


@both
@pytest.mark.parametrize("after", [False, True])
def test_an_error_of_the_store_leaves_one_live_file(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, spec: TableSpec, after: bool
) -> None:
    writer = committer(lake, (0,))
    land(writer, 0, 6, partition=0)
    expected = {table.name: rows(lake, table) for table in TABLES}
    original = LakeTable._swap
    fails = [True]

    def swap(table: LakeTable, *args: Any, **more: Any) -> int:
        if table.spec is spec and fails:
            fails.clear()
            if after:
                original(table, *args, **more)
            raise StoreUnavailableError("the store did not answer")
        return original(table, *args, **more)

    monkeypatch.setattr(LakeTable, "_swap", swap)
    assert compact_all(lake, writer) == 2
    assert {table.name: rows(lake, table) for table in TABLES} == expected
    assert len(snapshot(lake, spec).paths) == 1
    assert len(files(lake, spec)) == 7


def test_a_store_that_fails_for_good_costs_one_file(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = committer(lake, (0,))
    land(writer, 0, 6, partition=0)

    def swap(*_: Any, **__: Any) -> int:
        raise StoreUnavailableError("no")

    monkeypatch.setattr(LakeTable, "_swap", swap)
    made = compactor(lake, writer)
    for _ in range(6):
        merge(made, writer)
    made.close()
    assert made.commits == 0
    for spec in (SILVER_EVENTS, BRONZE_EVENTS):
        # The put may come to be yet, so its file stays; another is not made for a while.
        assert len(files(lake, spec)) == 7


def test_a_quiet_slots_version_that_has_left_the_log(lake: Lake) -> None:
    quiet, busy = committer(lake, (0,)), committer(lake, (1,))
    records = land(busy, 0, 45)
    for spec in TABLES:
        expire_log(lake, spec, keep=3)
    compact_all(lake, quiet)
    for spec in (SILVER_EVENTS, BRONZE_EVENTS):
        assert len(snapshot(lake, spec).paths) == 1
    assert_landed_once(lake, records)


def test_a_fenced_writer_that_compacts_is_fenced_all_the_same(lake: Lake) -> None:
    old = committer(lake, (0,))
    records = land(old, 0, 3, partition=0)
    successor = committer(lake, (0,))
    records += land(successor, 3, 3, partition=0)
    compact_all(lake, old, now=CLOSED)
    with pytest.raises(FencedError):
        old.land(batch([block(lines(77), 3)]))
    records += land(successor, 6, 1, partition=0)
    assert_landed_once(lake, records)
