"""A doubled identity is found wherever its two rows are; what only looks like one is not."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import duckdb
import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake import audit, audit_identities, findings
from dc_platform.lake.parquet import write_file
from dc_platform.lake.scratch import LITTLE, MUCH, in_little
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform_tests.helpers.compaction import compact_all, snapshot
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.lake import silver_row, silver_table
from dc_platform_tests.helpers.landing import CLOCK, batch, committer, event, lines
from dc_platform_tests.helpers.records import block, gateway_line

DAY = CLOCK.date()
OLD = DAY - timedelta(days=30)


def put(lake: Lake, day: date, *rows: dict[str, Any]) -> None:
    """One file of silver, whatever it holds."""
    lake.ensure(SILVER_EVENTS)
    file = write_file(lake, SILVER_EVENTS, silver_table(rows), partition=day)
    LakeTable(lake, SILVER_EVENTS).commit([file], txns={}, exact=True)


@pytest.fixture
def landed(lake: Lake) -> Lake:
    """With all tables, and a hundred events that are there once."""
    committer(lake).land(batch([block(lines(*range(100)), 0)]))
    assert audit_identities.repeated_identities(lake, DAY) == (0, [])
    return lake


def twin(number: int, **columns: Any) -> dict[str, Any]:
    return silver_row(number, source_id="t", event_id=some_uuid(7), **columns)


@pytest.mark.parametrize("first", [DAY, OLD])
def test_two_rows_in_two_files_are_found(landed: Lake, first: date) -> None:
    put(landed, first, twin(1000))
    put(landed, DAY, twin(1001))
    found = audit_identities.repeated_identities(landed, DAY)
    assert found == (1, [{"source_id": "t", "event_id": some_uuid(7), "rows": 2}])


def test_two_rows_in_one_file_are_found(landed: Lake) -> None:
    put(landed, DAY, twin(1000), twin(1001), twin(1002))
    assert audit_identities.repeated_identities(landed, DAY).examples[0]["rows"] == 3


def test_compaction_does_not_hide_them(lake: Lake) -> None:
    writer = committer(lake)
    for number in range(4):
        writer.land(batch([block(lines(number), number)]))
    rows = LakeTable(lake, SILVER_EVENTS).snapshot()
    put(lake, DAY, twin(1000))
    put(lake, DAY, twin(1001))
    assert audit_identities.repeated_identities(lake, DAY).number == 1
    writer.refresh()
    assert compact_all(lake, writer) > 0
    assert not set(rows.paths) & set(snapshot(lake, SILVER_EVENTS).paths)
    assert audit_identities.repeated_identities(lake, DAY).number == 1
    # And one whose first row only a merged file has.
    put(lake, DAY, silver_row(1002, **_as_landed(lake)))
    assert audit_identities.repeated_identities(lake, DAY).number == 2


def _as_landed(lake: Lake) -> dict[str, Any]:
    with findings.tables(lake) as connection:
        cursor = connection.execute(
            "select source_id, event_id, dedup_scope from silver where kafka_offset = 0"
        )
        return cursor.to_arrow_table().to_pylist()[0]


def test_ids_of_two_sources_or_two_scopes_are_not_doubles(landed: Lake) -> None:
    put(landed, DAY, twin(1000), twin(1001, dedup_scope=5))
    put(landed, DAY, silver_row(1002, source_id="u", event_id=some_uuid(7)))
    assert audit_identities.repeated_identities(landed, DAY).number == 0


def test_what_only_has_the_same_hash_is_no_finding(
    landed: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspicious = audit_identities.suspicious

    def collide(lake: Lake, suspects: str, exact: str, since: date) -> findings.Finding:
        # Everybody is a suspect.
        return suspicious(lake, suspects.split("having")[0], exact, since)

    monkeypatch.setattr(audit_identities, "suspicious", collide)
    assert audit_identities.repeated_identities(landed, DAY).number == 0
    assert audit_identities.reused_identities(landed, DAY).number == 0
    put(landed, DAY, twin(1000), twin(1001))
    assert audit_identities.repeated_identities(landed, DAY).number == 1


def test_an_id_with_two_timestamps_is_named(lake: Lake) -> None:
    same = [gateway_line(event(n, NOW - 60_000)) for n in (1, 2, 2)]
    committer(lake).land(batch([block(same, 0)]))
    assert audit_identities.reused_identities(lake, DAY) == (0, [])
    committer(lake).land(batch([block([gateway_line(event(2, NOW - 120_000))], 1)]))
    found = audit_identities.reused_identities(lake, DAY)
    assert found.number == 1
    assert (found.examples[0]["event_id"], found.examples[0]["times"]) == (some_uuid(2), 2)


def test_an_event_of_another_id_at_the_address_does_not_stand_for_it(lake: Lake) -> None:
    """The address alone is no proof: silver has a row there, of somebody else."""
    committer(lake).land(batch([block(lines(1, 2), 0)]))
    table = LakeTable(lake, SILVER_EVENTS)
    with findings.tables(lake) as connection:
        rows = connection.execute("select * exclude (ingest_date) from silver").to_arrow_table()
    changed = rows.to_pylist()
    changed[0]["event_id"] = some_uuid(99)
    file = write_file(lake, SILVER_EVENTS, silver_table(changed), partition=DAY)
    table.replace(DAY, [file], metadata={})
    found = audit_identities.missing_events(lake, DAY)
    assert found.number == 1
    assert found.examples[0]["event_id"] != some_uuid(99)


def test_a_block_with_one_position_twice_and_another_missing_is_found(lake: Lake) -> None:
    """As many rows as were counted."""
    committer(lake).land(batch([block(lines(1, 2, 3), 0)]))
    assert audit.incomplete_blocks(lake, DAY).number == 0
    with findings.tables(lake) as connection:
        rows = connection.execute(
            "select * exclude (ingest_date) replace (if(kafka_index = 1, 2, kafka_index)"
            " as kafka_index) from bronze"
        ).to_arrow_table()
    table = LakeTable(lake, BRONZE_EVENTS)
    rows = rows.cast(BRONZE_EVENTS.file_schema)
    table.replace(DAY, [write_file(lake, BRONZE_EVENTS, rows, partition=DAY)], metadata={})
    [example] = audit.incomplete_blocks(lake, DAY).examples
    assert (example["rows"], example["indexes"]) == (3, 2)


def test_what_needs_more_memory_gets_it_once_and_fails_then() -> None:
    given: list[str] = []

    def greedy(memory: str) -> str:
        given.append(memory)
        if memory != MUCH:
            raise duckdb.OutOfMemoryException("no room")
        return memory

    assert in_little(greedy) == MUCH
    assert given == [LITTLE, MUCH]

    def insatiable(memory: str) -> str:
        raise duckdb.OutOfMemoryException(memory)

    with pytest.raises(duckdb.OutOfMemoryException, match=MUCH):
        in_little(insatiable)
