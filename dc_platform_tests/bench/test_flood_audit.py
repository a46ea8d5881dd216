"""The flood's audit names what is lost, doubled or was never acknowledged; and reads commit times."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dc_platform.bench import base_lake
from dc_platform.bench.flood_lake import audit, probes_in_silver, silver_commits
from dc_platform.bench.flood_load import ACKS
from dc_platform.bench.workload import source_id
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable

ROWS = 2_000
NOBODY = "11111111-1111-1111-1111-111111111111"
GOOD = {"lost_events": 0, "doubled_events": 0, "not_acknowledged_events": 0}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Silver with events at partition 0, offsets from 0 on, one to a record."""
    now_ms = time.time_ns() // 1_000_000
    base_lake.build(tmp_path, ROWS, now_ms=now_ms, duplicates=0, progress=lambda _: None)
    return Lake(str(tmp_path))


def acks(offsets: range) -> pa.Table:
    rows = [
        {"partition": 0, "offset": o, "appended_at": 1.0, "acknowledged_at": 1.0, "events": 1}
        for o in offsets
    ]
    return pa.Table.from_pylist(rows, schema=ACKS)


def test_what_is_there_once_is_neither_lost_nor_doubled(lake: Lake) -> None:
    found = audit(lake, acks(range(ROWS)), NOBODY, [])
    assert found == {"acknowledged_events": ROWS, "landed_events": ROWS} | GOOD


def test_an_acknowledged_event_that_silver_lacks_is_lost(lake: Lake) -> None:
    found = audit(lake, acks(range(ROWS + 3)), NOBODY, ["a-probe"])
    assert found["lost_events"] == 4
    assert found["acknowledged_events"] == ROWS + 4


def test_what_was_never_acknowledged_is_told_apart(lake: Lake) -> None:
    assert audit(lake, acks(range(10, ROWS)), NOBODY, [])["not_acknowledged_events"] == 10


def test_an_event_at_two_addresses_is_doubled(lake: Lake) -> None:
    table = LakeTable(lake, SILVER_EVENTS)
    rows = pq.read_table(table.snapshot().paths[0], schema=SILVER_EVENTS.file_schema).slice(0, 5)
    at = rows.schema.get_field_index("kafka_offset")
    rows = rows.set_column(at, rows.schema.field(at), pa.array(range(ROWS, ROWS + 5), pa.int64()))
    today = datetime.now(UTC).date()
    ranges = {"dcp.ranges": f'{{"0": [{ROWS}, {ROWS + 5}]}}'}
    before = time.time()
    file = write_file(lake, SILVER_EVENTS, rows, partition=today)
    table.commit([file], txns={}, exact=True, metadata=ranges)
    found = audit(lake, acks(range(ROWS + 5)), NOBODY, [])
    assert found["doubled_events"] == 5
    assert found["lost_events"] == 0
    commit = silver_commits(lake)[-1]
    assert commit.ends == {0: ROWS + 5}
    assert before - 1 < commit.at < time.time() + 1


def test_a_sources_probes_are_found_with_their_addresses(lake: Lake) -> None:
    # The events of the base lake are spread evenly.
    found = probes_in_silver(lake, source_id(7))
    assert len(found) == ROWS // 1_000
    probes = found["event_id"].to_pylist()
    addresses = set(found["offset"].to_pylist())
    others = acks(range(ROWS)).filter(pa.array([o not in addresses for o in range(ROWS)]))
    assert audit(lake, others, source_id(7), probes)["lost_events"] == 0
    assert audit(lake, others, source_id(7), [*probes, "never landed"])["lost_events"] == 1
