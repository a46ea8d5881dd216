"""Flags and stamps in the tables: landed, rebuilt from bronze as they were, and in lakes that were
made before there were any.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dc_platform.broker.records import Record
from dc_platform.contracts.envelope import Passed
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.schema import definition_of
from dc_platform.contracts.schema_check import Checker, Rules
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.decode.decoder import Decoder
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.backfill import backfill_silver
from dc_platform.landing.batch import Batch, Range
from dc_platform.landing.batch_commit import app_id
from dc_platform.landing.failing import report_failures
from dc_platform.landing.rebuild import replay_bronze
from dc_platform.points import Point
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.serving.view import View
from dc_platform_tests.helpers.compaction import compact_all
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.lake import older, read_table, silver_table
from dc_platform_tests.helpers.landing import (
    CLOCK,
    INFO,
    CrashError,
    committer,
    crash_at,
)
from dc_platform_tests.helpers.records import (
    SOURCE,
    TOPIC_ID,
    Registered,
    block,
    gateway_line,
    strange,
)

DAY = CLOCK.date()
CHECKER = Checker(
    "orders",
    7,
    "orders",
    definition_of(
        {
            "fields": [{"name": "n", "type": "NUMBER"}],
            "validations": [
                {"field": "n", "rule": "expected", "max": 5},
                {"field": "n", "rule": "range", "max": 9},
            ],
        }
    ),
)
HISTORY = Registered({SOURCE: ("default", 0, None)}, {SOURCE: Rules({"": CHECKER})})


def event(n: int, **more: Any) -> bytes:
    time = more.get("at", NOW)
    named = b'"sourceId":"%b",' % SOURCE.encode() if more.get("named") else b""
    return b'{%b"eventType":"t","timestamp":%d,"payload":{"n":%d}}' % (named, time, n)


def records() -> list[Record]:
    """A gateway's and a stranger's, flagged and not, late and not, and one that is refused."""
    late = NOW - 2 * HOUR
    lines = [
        gateway_line(event(1)),
        gateway_line(event(2, at=late), judged=Passed("orders/6")),
        gateway_line(event(3), judged=Passed("orders/6", ("warn:n:range",))),
    ]
    strangers = [(1, NOW), (6, NOW), (7, late), (99, NOW)]
    return [
        block(lines),
        *(
            strange(event(n, at=at, named=True), offset)
            for offset, (n, at) in enumerate(strangers, start=1)
        ),
    ]


EXPECTED = [
    (None, None, "1"),
    ("orders/6", ["late"], "6"),
    ("orders/6", ["warn:n:range"], "6"),
    ("orders/7", None, "7"),
    ("orders/7", ["anomaly:n"], "7"),
    ("orders/7", ["late", "anomaly:n"], "7"),
]
STAMPS = "judged_by, flags, schema_version"


def batch_of(found: list[Record]) -> Batch:
    judged = Decoder(TOPIC_ID, HISTORY).decode(found)
    end = found[-1].offset + 1
    return Batch(judged, {0: Range(found[0].offset, end)}, judged.nbytes)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def test_they_land(lake: Lake) -> None:
    committer(lake).land(batch_of(records()))
    assert read_table(lake, SILVER_EVENTS, STAMPS) == EXPECTED
    assert read_table(lake, BRONZE_EVENTS, STAMPS) == [*EXPECTED, ("orders/7", None, "7")]
    refused = read_table(lake, SILVER_QUARANTINE, "judged_by, schema_version, reason")
    assert refused == [("orders/7", "7", Reason.VALUE_OUT_OF_RANGE)]


def test_a_backfill_gives_them_back(lake: Lake) -> None:
    """From bronze, not from today's schema: the registry is not asked."""
    committer(lake).land(batch_of(records()))
    before = read_table(lake, SILVER_EVENTS)
    assert backfill_silver(lake, DAY).version is None
    table = LakeTable(lake, SILVER_EVENTS)
    table.replace(DAY, [], metadata={"dcp.test": "damage"})
    assert read_table(lake, SILVER_EVENTS) == []
    assert backfill_silver(lake, DAY).added == len(EXPECTED)
    names = [n for n in SILVER_EVENTS.columns.names if n != "processed_at"]
    at = SILVER_EVENTS.columns.names.index("processed_at")
    assert read_table(lake, SILVER_EVENTS, ", ".join(names)) == [
        row[:at] + row[at + 1 :] for row in before
    ]


def test_a_replay_of_bronze_gives_them_back(lake: Lake) -> None:
    """Kafka has lost what bronze has: silver is landed from there."""
    with pytest.raises(CrashError):
        committer(lake, reached=crash_at(Point.AFTER_BRONZE)).land(batch_of(records()))
    successor = committer(lake)
    for batch in replay_bronze(lake, INFO, successor, kafka_begins={0: 100}):
        successor.land(batch)
    assert read_table(lake, SILVER_EVENTS, STAMPS) == EXPECTED


# --- lakes of older releases ---


def make_older_lake(lake: Lake) -> list[tuple[Any, ...]]:
    """A lake with events that landed before; gives what silver has of them."""
    found = Decoder(TOPIC_ID, Registered(HISTORY.history)).decode(
        [block([gateway_line(event(n)) for n in (11, 12)]), block([gateway_line(event(13))], 1)]
    )
    for spec in map(older, (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE)):
        lake.ensure(spec)
        if spec.name == SILVER_QUARANTINE.name:
            continue
        table = LakeTable(lake, spec)
        at = pa.array([CLOCK] * len(found), spec.columns.field("processed_at").type)
        for part in (slice(0, 2), slice(2, 3)):
            rows = found.append_column("processed_at", at)[part]
            rows = rows.select(spec.file_schema.names).cast(spec.file_schema)
            file = write_file(lake, spec, rows, partition=DAY)
            table.commit([file], txns={app_id(spec, INFO, 0): 10}, exact=True)
    return read_table(lake, older(SILVER_EVENTS), "event_id, payload")


def test_an_older_lake_opens_and_goes_on(tmp_path: Path) -> None:
    before = make_older_lake(Lake(str(tmp_path)))
    # Also for who only reads, before anybody has added the columns.
    lake = Lake(str(tmp_path))
    assert read_table(lake, SILVER_EVENTS, "event_id, payload") == before
    assert read_table(lake, SILVER_EVENTS, "judged_by, flags") == [(None, None)] * 3
    moved = [replace_offset(r, r.offset + 10) for r in records()]
    committer(lake).land(batch_of(moved))
    for spec in (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE):
        fields = {field.name for field in lake.open(spec).schema().fields}
        assert set(spec.columns.names) == fields
    assert read_table(lake, SILVER_EVENTS, STAMPS) == [(None, None, "1")] * 3 + EXPECTED
    # Opened again nothing changes.
    versions = [LakeTable(lake, s).version for s in (BRONZE_EVENTS, SILVER_EVENTS)]
    for spec in (BRONZE_EVENTS, SILVER_EVENTS):
        Lake(str(tmp_path)).ensure(spec)
    assert [LakeTable(lake, s).version for s in (BRONZE_EVENTS, SILVER_EVENTS)] == versions


def replace_offset(record: Record, offset: int) -> Record:
    return Record(0, offset, record.timestamp_ms, record.headers, record.value)


@pytest.mark.parametrize("ordered", [True, False])
def test_older_files_are_merged_with_newer_ones(tmp_path: Path, ordered: bool) -> None:
    make_older_lake(Lake(str(tmp_path)))
    lake = Lake(str(tmp_path))
    writer = committer(lake)
    writer.land(batch_of([replace_offset(r, r.offset + 10) for r in records()]))
    expected = [read_table(lake, spec) for spec in (BRONZE_EVENTS, SILVER_EVENTS)]
    now = CLOCK + timedelta(hours=2 if ordered else 0)
    assert compact_all(lake, writer, now=now.timestamp() + 60) > 0
    assert [read_table(lake, spec) for spec in (BRONZE_EVENTS, SILVER_EVENTS)] == expected
    snapshot = LakeTable(lake, SILVER_EVENTS).snapshot()
    assert snapshot.lacking(SILVER_EVENTS) == frozenset()


def test_older_rows_are_backfilled_and_queried(tmp_path: Path) -> None:
    make_older_lake(Lake(str(tmp_path)))
    lake = Lake(str(tmp_path))
    committer(lake).land(batch_of([replace_offset(r, r.offset + 10) for r in records()]))
    assert backfill_silver(lake, DAY).version is None
    table = LakeTable(lake, SILVER_EVENTS)
    with duckdb.connect(config={"threads": 1}) as connection:
        view = View(table.snapshot(), {})
        found = connection.execute(
            f"select count(*), count(flags), count(judged_by) from ({view.union_sql()})"
        ).fetchall()
    assert found == [(9, 4, 5)]


def test_two_may_add_the_columns_at_once(tmp_path: Path) -> None:
    make_older_lake(Lake(str(tmp_path)))
    lakes = [Lake(str(tmp_path)) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda lake: lake.ensure(SILVER_EVENTS), lakes))
    fields = [field.name for field in lakes[0].open(SILVER_EVENTS).schema().fields]
    assert sorted(fields) == sorted(SILVER_EVENTS.columns.names)


def test_a_file_of_who_writes_no_statistics_is_read_with_its_columns(lake: Lake) -> None:
    """Whoever wrote it: the log says nothing of its columns, so its footer is asked."""
    lake.ensure(SILVER_EVENTS)
    table = LakeTable(lake, SILVER_EVENTS)
    rows = silver_table(
        [{"event_id": "x", "flags": ["late"], "judged_by": "a/1", "kafka_offset": 1}]
    )
    file = write_file(lake, SILVER_EVENTS, rows, partition=DAY)
    table.commit([replace(file, stats='{"numRecords":1}')], txns={}, exact=True)
    assert table.snapshot().lacking(SILVER_EVENTS) == frozenset(table.snapshot().paths)
    assert read_table(lake, SILVER_EVENTS, "event_id, flags, judged_by") == [("x", ["late"], "a/1")]


# --- sources that fail ---


def test_landing_fails_the_source_of_an_event_that_says_so(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    migrate(url)
    sources = Sources(Database(url))
    rule = {"field": "n", "rule": "range", "max": 5, "action": "FAIL"}
    schema = {"fields": [{"name": "n", "type": "NUMBER"}], "validations": [rule]}
    made, _ = sources.create("s", SourceType.SERVER, schema=schema)
    checker = Checker("id", 1, "s", definition_of(schema))
    history = Registered({made.source_id: ("t", 0, None)}, {made.source_id: Rules({"": checker})})
    value = event(9, named=True).replace(SOURCE.encode(), made.source_id.encode())
    failing = [strange(value, timestamp_ms=made.created_ms)]
    judged = Decoder(TOPIC_ID, history).decode(failing)
    report_failures(None, judged)
    report_failures(sources, Decoder(TOPIC_ID, HISTORY).decode(records()))
    assert [s.failure for s in sources.list()] == [None]
    report_failures(sources, judged)
    [failed] = sources.list()
    assert "payload.n is 9, allowed is up to 5" in str(failed.failure)
    sources.change(made.source_id, enabled=True)
    # A run that was killed before its commit lands the event again.
    report_failures(sources, judged)
    assert [s.failure for s in sources.list()] == [None]


def test_a_registry_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> bool:
        raise StoreUnavailableError("the registry is away")

    monkeypatch.setattr(Sources, "fail", away)
    history = Registered(HISTORY.history, {SOURCE: Rules({"": failing_checker()})})
    judged = Decoder(TOPIC_ID, history).decode([strange(event(9, named=True))])
    with pytest.raises(StoreUnavailableError):
        report_failures(Sources(Database("sqlite://")), judged)


def failing_checker() -> Checker:
    rule = {"field": "n", "rule": "range", "max": 5, "action": "FAIL"}
    schema = {"fields": [{"name": "n", "type": "NUMBER"}], "validations": [rule]}
    return Checker("id", 1, "s", definition_of(schema))
