"""One event among millions is found by the filters of the files of closed hours."""

from __future__ import annotations

import uuid
from datetime import date
from pathlib import Path

import duckdb
import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake.parquet import needle_options
from dc_platform.lake.rewrite import Cancellation, merge_files
from dc_platform.lake.sizes import sizes
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.lake import silver_row, write_silver
from dc_platform_tests.helpers.landing import CLOCK, batch, committer, lines
from dc_platform_tests.helpers.records import block

DAY = date(CLOCK.year, CLOCK.month, CLOCK.day)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    found = Lake(str(tmp_path / "lake"))
    writer = committer(found)
    for offset in range(3):
        writer.land(batch([block(lines(*range(offset * 100, offset * 100 + 100)), offset)]))
    writer.close()
    return found


def merged(lake: Lake, *, ordered: bool) -> str:
    paths = LakeTable(lake, SILVER_EVENTS).snapshot().actions["path"].to_pylist()
    file = merge_files(lake, SILVER_EVENTS, paths, DAY, ordered=ordered, cancelled=Cancellation())
    return f"{lake.uri_of(SILVER_EVENTS)}/{file.path}"


def excluded(path: str, event_id: str) -> list[bool]:
    """Whether each row group's filter says that it does not have the id."""
    rows = duckdb.execute(
        "select bloom_filter_excludes from parquet_bloom_probe($path, 'event_id', $id)",
        {"path": path, "id": event_id},
    ).fetchall()
    return [bool(row[0]) for row in rows]


def test_the_filter_has_every_id_and_few_others(lake: Lake) -> None:
    path = merged(lake, ordered=True)
    ids = duckdb.execute("select event_id from read_parquet($p)", {"p": path}).fetchall()
    assert len(ids) == 300
    assert not any(any(excluded(path, event_id)) for (event_id,) in ids)
    others = [excluded(path, str(uuid.UUID(int=number << 64))) for number in range(200)]
    assert sum(all(of) for of in others) > 180
    # DuckDB asks a filter only beside the bounds of its column.
    [(low,)] = duckdb.execute(
        "select stats_min_value from parquet_metadata($p) where path_in_schema = 'event_id'",
        {"p": path},
    ).fetchall()
    assert low == min(event_id for (event_id,) in ids)


def test_files_that_are_merged_again_soon_have_none(lake: Lake) -> None:
    assert excluded(merged(lake, ordered=False), str(uuid.uuid4())) == [False]


def test_a_small_file_has_a_small_filter_and_bronze_none() -> None:
    assert needle_options(SILVER_EVENTS, 5)["bloom_filter_options"]["event_id"]["ndv"] == 5
    assert needle_options(BRONZE_EVENTS, 5) == {}


def test_what_bounds_rule_out_is_told(lake: Lake) -> None:
    """Three files of one moment, and four of another hour each."""
    found = sizes(lake, SILVER_EVENTS)
    assert (found.files, found.groups, found.rows) == (3, 3, 300)
    assert found.skipped == {"source_id": 0.0, "event_time": 0.0}
    hours = [(NOW + hour * 3_600_000) * 1000 for hour in range(1, 5)]
    rows = [silver_row(number, event_time=at) for number, at in enumerate(hours)]
    table = LakeTable(lake, SILVER_EVENTS)
    table.commit([write_silver(lake, [row]) for row in rows], txns={}, exact=True)
    # Of seven groups a value of the three is in three, one of the four in one.
    assert sizes(lake, SILVER_EVENTS).skipped["event_time"] == round((3 * 4 + 4 * 6) / 49, 3)
