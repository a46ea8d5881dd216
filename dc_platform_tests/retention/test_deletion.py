"""Retention: what is old goes from every table and every file, and does not come back."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dc_platform.broker.records import Record
from dc_platform.contracts.ops_tables import DELETIONS, TOMBSTONES
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.audit import lost_events, offset_gaps
from dc_platform.lake.audit_identities import repeated_identities
from dc_platform.lake.balance import balance, pin
from dc_platform.lake.ledger_findings import totals, unbalanced
from dc_platform.lake.payload_index import PayloadIndex
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.backfill import backfill_silver
from dc_platform.points import Point
from dc_platform.registry.retention import Retention
from dc_platform.retention.conditions import below_floors
from dc_platform.retention.proof import prove
from dc_platform_tests.helpers.compaction import compact_all
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import (
    CLOCK,
    CrashError,
    batch,
    committer,
    crash_at,
    land_again,
    quarantine,
    silver,
)
from dc_platform_tests.helpers.records import strange
from dc_platform_tests.helpers.retention import (
    days_ago,
    ids,
    policies,
    registry,
    run_of,
    stranger,
)


def records() -> list[Record]:
    return [
        stranger(0, 1, 2, days=40),
        stranger(1, 3, 4, days=40, kind="audit"),
        stranger(2, 5, 6, days=1),
        # Without a timestamp of its own: the time of receipt, and it may come in again.
        stranger(3, 7, days=40, timed=False),
        strange(b"nonsense", 4, timestamp_ms=days_ago(40)),
        strange(b"nonsense", 5, timestamp_ms=days_ago(1)),
        # A duplicate of what is old.
        stranger(6, 1, days=40),
    ]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def retention(tmp_path: Path) -> Retention:
    made = registry(tmp_path)
    policies(made, {"*": 30, "audit": 365})
    return made


def land(lake: Lake, events: list[Record]) -> None:
    writer = committer(lake)
    for record in events:
        writer.land(batch([record]))
    writer.close()


def verdicts(lake: Lake) -> list[str]:
    return [verdict for (verdict,) in read_table(lake, BRONZE_EVENTS, "verdict")]


def assert_nothing_is_missed(lake: Lake) -> None:
    since = CLOCK.date()
    for finding in (lost_events(lake, since), repeated_identities(lake, since), offset_gaps(lake)):
        assert finding.number == 0, finding.examples
    rows = balance(pin(lake))
    assert unbalanced(rows, datetime.now(UTC)) == []


def deleted_in_ledger(lake: Lake) -> int:
    return totals(balance(pin(lake)))["deleted"]


def test_what_is_old_goes_and_everything_still_balances(
    tmp_path: Path, lake: Lake, retention: Retention
) -> None:
    land(lake, records())
    run = run_of(tmp_path, retention)
    [outcome] = run.run(who="test")
    assert outcome.waits is not None
    assert "readers of older versions" in outcome.waits
    assert set(silver(lake)) == ids([3, 4, 5, 6])
    assert verdicts(lake).count("deleted") == 5
    assert len(quarantine(lake)) == 1
    assert deleted_in_ledger(lake) == 5
    assert_nothing_is_missed(lake)
    # The stubs say where, and nothing else.
    left = read_table(lake, BRONZE_EVENTS, "raw, event_id, event_type, event_time, verdict")
    assert all(row[:4] == (None,) * 4 for row in left if row[4] == "deleted")
    # Nothing more to do but to wait for readers.
    [again] = run.run(who="test")
    assert again.waits == outcome.waits
    assert len(retention.pending()) == 1
    assert read_table(lake, DELETIONS, "rows") == []


def test_the_record_says_what_went_and_how_it_was_proved(
    tmp_path: Path, lake: Lake, retention: Retention
) -> None:
    land(lake, records())
    run = run_of(tmp_path, retention)
    [last] = run.run(who="test", at_once=True)
    assert last.waits is None
    assert last.proof is not None
    assert last.proof.holds
    assert retention.pending() == []
    recorded = {
        row[0]: row[1:]
        for row in read_table(lake, DELETIONS, "table_name, rows, files, kind, who, proof")
    }
    assert recorded[SILVER_EVENTS.name][:4] == (3, 2, "retention", "test")
    assert recorded[BRONZE_EVENTS.name][0] == 5
    assert recorded[SILVER_QUARANTINE.name][0] == 1
    proof = json.loads(recorded[SILVER_EVENTS.name][4])
    assert proof["found"] == []
    assert proof["files"] > 5
    assert run.run(who="test") == []


def test_offsets_stay_and_landing_goes_on(tmp_path: Path, lake: Lake, retention: Retention) -> None:
    events = records()
    land(lake, events)
    writer = committer(lake)
    before = writer.offsets
    run_of(tmp_path, retention).run(who="test")
    # A writer that was there before, and one that comes after.
    writer.land(batch([stranger(7, 20, days=0)]))
    writer.close()
    assert set(silver(lake)) == ids([3, 4, 5, 6, 20])
    successor = land_again(lake, [*events, stranger(7, 20, days=0), stranger(8, 21, days=0)])
    assert successor.offsets[0] == 9
    assert before[0] == 7
    assert set(silver(lake)) == ids([3, 4, 5, 6, 20, 21])
    assert_nothing_is_missed(lake)


@pytest.mark.parametrize("fresh", [True, False], ids=["a new writer", "one that was there"])
def test_a_deleted_event_that_is_sent_again_does_not_land(
    tmp_path: Path, lake: Lake, retention: Retention, fresh: bool
) -> None:
    land(lake, records())
    writer = committer(lake)
    run_of(tmp_path, retention).run(who="test")
    if fresh:
        writer.close()
        writer = committer(lake)
    tombs = read_table(lake, TOMBSTONES, "source_id, event_id")
    assert len(tombs) == 2
    assert ids([7]) < set(tombs)
    # It has no timestamp, so no floor keeps it out; a new one beside it lands.
    done = writer.land(batch([stranger(7, 7, 22, days=0, timed=False)]))
    writer.close()
    assert (done.deleted, done.landed, done.duplicates, done.rejected) == (1, 1, 0, 0)
    assert set(silver(lake)) == ids([3, 4, 5, 6, 22])
    assert verdicts(lake)[-2:] == ["deleted", "valid"]
    assert_nothing_is_missed(lake)


def test_backfill_and_rebuild_do_not_bring_it_back(
    tmp_path: Path, lake: Lake, retention: Retention
) -> None:
    land(lake, records())
    run_of(tmp_path, retention).run(who="test")
    kept = set(silver(lake))
    # All of silver is lost, and built anew from bronze.
    LakeTable(lake, SILVER_EVENTS).replace(CLOCK.date(), [], metadata={})
    assert backfill_silver(lake, CLOCK.date()).after == len(kept)
    assert set(silver(lake)) == kept
    assert backfill_silver(lake, CLOCK.date()).version is None


def test_a_tombstone_alone_keeps_backfill_from_it(
    tmp_path: Path, lake: Lake, retention: Retention
) -> None:
    land(lake, records())
    # Killed before bronze: the event is in every table still, and has a tombstone.
    with pytest.raises(CrashError):
        run_of(tmp_path, retention, reached=crash_at(Point.TOMBSTONES_WRITTEN)).run(who="test")
    LakeTable(lake, SILVER_EVENTS).replace(CLOCK.date(), [], metadata={})
    backfill_silver(lake, CLOCK.date())
    assert set(silver(lake)) == ids([1, 2, 3, 4, 5, 6])
    # Bronze has it as a valid event that silver lacks: deleted, not lost.
    assert deleted_in_ledger(lake) == 1
    assert_nothing_is_missed(lake)


DELETION = [point for point in Point if point.part == "deletion"]


@pytest.mark.parametrize(
    ("point", "nth"), [*((point, 1) for point in DELETION), (Point.ERASED_COMMITTED, 2)]
)
def test_a_deletion_that_is_killed_is_completed(
    tmp_path: Path, lake: Lake, retention: Retention, point: Point, nth: int
) -> None:
    land(lake, records())
    passed = []

    def reached(name: str) -> None:
        passed.append(name)
        if passed.count(point) == nth:
            raise CrashError(point)

    with pytest.raises(CrashError):
        run_of(tmp_path, retention, reached=reached).run(who="test", at_once=True)
    assert_nothing_is_missed(lake)
    outcomes = run_of(tmp_path, retention).run(who="test", at_once=True)
    assert all(outcome.waits is None for outcome in outcomes)
    assert retention.pending() == []
    assert set(silver(lake)) == ids([3, 4, 5, 6])
    rows = read_table(lake, DELETIONS, "table_name, sum(rows), count(*) ") if False else None
    del rows
    recorded = read_table(lake, DELETIONS, "table_name, rows")
    assert sorted(recorded) == [
        (BRONZE_EVENTS.name, 5),
        (SILVER_EVENTS.name, 3),
        (SILVER_QUARANTINE.name, 1),
    ]
    assert_nothing_is_missed(lake)


def test_the_proof_finds_what_was_left(tmp_path: Path, lake: Lake, retention: Retention) -> None:
    land(lake, records())
    # Copies that no version of the table names.
    copies = []
    for path in LakeTable(lake, SILVER_EVENTS).snapshot().paths:
        copy = Path(path).with_name("copy-" + Path(path).name)
        shutil.copy(path, copy)
        copies.append(copy)
    [outcome] = run_of(tmp_path, retention).run(who="test", at_once=True)
    assert outcome.waits is not None
    assert "still has some of it" in outcome.waits
    assert outcome.proof is not None
    assert {Path(found["file"]).name[:5] for found in outcome.proof.found} == {"copy-"}
    assert sum(found["rows"] for found in outcome.proof.found) == 3
    assert read_table(lake, DELETIONS, "rows") == []
    for copy in copies:
        copy.unlink()
    [outcome] = run_of(tmp_path, retention).run(who="test", at_once=True)
    assert outcome.waits is None


def test_the_proof_finds_identities(tmp_path: Path, lake: Lake, retention: Retention) -> None:
    land(lake, records())
    folder = Path(lake.uri_of(SILVER_EVENTS)) / "_identities"
    for path in list(folder.glob("*.ids")):
        shutil.copy(path, path.with_name("copy-" + path.name))
    [outcome] = run_of(tmp_path, retention).run(who="test", at_once=True)
    assert outcome.proof is not None
    [found] = outcome.proof.found
    assert found["identities"] == 1
    assert "copy-" in found["file"]


def test_an_index_goes_with_its_file_and_the_proof_looks(
    tmp_path: Path, lake: Lake, retention: Retention
) -> None:
    """Hashes of users are personal data, too."""
    land(lake, records())
    writer = committer(lake)
    compact_all(lake, writer)
    writer.close()
    [path] = LakeTable(lake, SILVER_EVENTS).snapshot().actions["path"].to_pylist()
    PayloadIndex(lake, ["n"]).build(path)
    folder = Path(lake.uri_of(SILVER_EVENTS)) / "_identities"
    [index] = folder.glob("*.fields")
    shutil.copy(index, tmp_path / "index")
    [outcome] = run_of(tmp_path, retention).run(who="test", at_once=True)
    assert outcome.waits is None
    assert list(folder.glob("*.fields")) == []
    # One that was just being made when its file went.
    shutil.copy(tmp_path / "index", index)
    proof = prove(lake, below_floors([]), "d", received_until=0)
    assert [Path(found["file"]).name for found in proof.found] == [index.name]


def test_beside_compaction(tmp_path: Path, lake: Lake, retention: Retention) -> None:
    """Whoever commits second finds the files gone, and begins anew."""
    land(lake, records())

    def merge(name: str) -> None:
        if name == Point.ERASED_WRITTEN and not merged:
            merged.append(name)
            compact_all(lake, committer(lake))

    merged: list[str] = []
    run_of(tmp_path, retention, reached=merge).run(who="test")
    assert merged
    assert set(silver(lake)) == ids([3, 4, 5, 6])
    assert_nothing_is_missed(lake)
    compact_all(lake, committer(lake))
    assert set(silver(lake)) == ids([3, 4, 5, 6])
