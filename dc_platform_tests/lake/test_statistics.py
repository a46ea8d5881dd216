"""Statistics in the log: bounds that hold, so that no file is left out that has a match."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import statistics
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.serving.view import View
from dc_platform_tests.helpers.events import NOW, TRAPS
from dc_platform_tests.helpers.lake import silver_row, silver_table, write_silver

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_US = MAX_TIMESTAMP_MS * 1000
times = st.one_of(
    st.integers(MIN_TIMESTAMP_MS * 1000, LAST_US),
    st.integers(NOW * 1000, NOW * 1000 + 3000),
    st.sampled_from((MIN_TIMESTAMP_MS * 1000, LAST_US, -1, 0, 1, -999, -1000, -1001, 999)),
)


def committed(lake: Lake, files: list[list[dict[str, object]]]) -> Snapshot:
    lake.ensure(SILVER_EVENTS)
    table = LakeTable(lake, SILVER_EVENTS)
    table.commit([write_silver(lake, rows) for rows in files], txns={}, exact=True)
    return LakeTable(lake, SILVER_EVENTS).snapshot()


@given(st.lists(times, min_size=1, max_size=5))
def test_bounds_are_rounded_outwards_to_milliseconds(found: list[int]) -> None:
    table = silver_table([silver_row(event_time=at) for at in found])
    stats = statistics(table, ("event_time",))
    low, high = (
        datetime.fromisoformat(stats[side]["event_time"]) - EPOCH
        for side in ("minValues", "maxValues")
    )
    first, last = (timedelta(microseconds=at) for at in (min(found), max(found)))
    assert timedelta(0) <= first - low < timedelta(milliseconds=1)
    assert timedelta(0) <= high - last < timedelta(milliseconds=1)


@given(st.lists(st.lists(times, min_size=1, max_size=3), min_size=1, max_size=3), times, times)
@settings(max_examples=25)
def test_no_file_with_a_match_is_left_out(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[int]], start: int, end: int
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    snapshot = committed(lake, [[silver_row(event_time=at) for at in found] for found in files])
    low, high = snapshot.bounds("event_time")
    assert low.null_count == high.null_count == 0
    by_path = {path: number for number, path in enumerate(snapshot.paths)}
    assert len(by_path) == len(files)
    view = View(snapshot, {})
    for from_us, to_us in ((start, end), (start, None), (None, end), (start, start + 1)):
        sql = view.silver_sql(from_us, to_us)
        kept = [path for path in snapshot.paths if path in sql]
        for path in set(snapshot.paths) - set(kept):
            rows = pa.parquet.read_table(path, columns=["event_time"])
            stored = rows["event_time"].cast(pa.int64()).to_pylist()
            assert not any(
                (from_us is None or at >= from_us) and (to_us is None or at < to_us)
                for at in stored
            )


def test_files_without_a_match_are_left_out(tmp_path: Path) -> None:
    hour = 3_600_000_000
    files = [[silver_row(n, event_time=NOW * 1000 + n * hour)] for n in range(4)]
    snapshot = committed(Lake(str(tmp_path)), files)
    view = View(snapshot, {})
    sql = view.silver_sql(NOW * 1000 + hour, NOW * 1000 + 3 * hour)
    assert sum(path in sql for path in snapshot.paths) == 2
    assert view.silver_sql(NOW * 1000 - 2, NOW * 1000 - 1).endswith("where false")


@pytest.mark.parametrize("year", [1, 9, 99, 999, 1000, 9999])
def test_every_year_has_bounds_that_the_log_understands(tmp_path: Path, year: int) -> None:
    at = datetime(year, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC) - EPOCH
    microseconds = at // timedelta(microseconds=1)
    snapshot = committed(Lake(str(tmp_path)), [[silver_row(event_time=microseconds)]])
    for bound in snapshot.bounds("event_time"):
        assert bound.cast(pa.int64()).to_pylist() == [microseconds]


def test_bounds_of_texts_and_numbers(tmp_path: Path) -> None:
    sources = [*TRAPS, "z" * 128, "\U0010ffff"]
    rows = [
        silver_row(n, source_id=source, dedup_scope=-(2**31) + n, kafka_offset=2**62 + n)
        for n, source in enumerate(sources)
    ]
    snapshot = committed(Lake(str(tmp_path)), [rows])
    for column, values in (
        ("source_id", sources),
        ("dedup_scope", [row["dedup_scope"] for row in rows]),
        ("kafka_offset", [row["kafka_offset"] for row in rows]),
    ):
        low, high = (bound[0].as_py() for bound in snapshot.bounds(column))
        assert low <= min(values)
        assert high >= max(values)


def test_dictionaries_and_nulls() -> None:
    table = pa.table(
        {
            "source_id": pa.array(["b", None, "a"]).dictionary_encode(),
            "event_time": pa.nulls(3, pa.timestamp("us", tz="UTC")),
        }
    )
    stats = statistics(table, ("source_id", "event_time"))
    assert stats["numRecords"] == 3
    assert stats["nullCount"] == {"source_id": 1, "event_time": 3}
    assert stats["minValues"] == {"source_id": "a"}
    assert stats["maxValues"] == {"source_id": "b"}


def test_a_column_without_statistics_has_null_bounds(tmp_path: Path) -> None:
    snapshot = committed(Lake(str(tmp_path)), [[silver_row(1)], [silver_row(2)]])
    low, high = snapshot.bounds("event_type")
    assert low.null_count == high.null_count == 2
    assert pc.all(low.is_null()).as_py()
