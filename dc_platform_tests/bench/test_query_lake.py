"""The lake that queries are measured on, and those who ask."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.bench import query_fresh, query_lake, query_load
from dc_platform.bench.query_lake import DAY_MS, DAYS
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import KEPT_GROUP_ROWS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.retention.tiers import Tier, tier_of
from dc_platform.settings import Settings
from dc_platform_tests.helpers.lake import read_table

END_MS = 1_764_547_200_000  # 2025-12-01


def test_the_lake_is_as_compaction_and_tiers_leave_it(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    settings = Settings(data_dir=tmp_path)
    events = query_lake.build(lake, settings, 40_000, end_ms=END_MS, progress=lambda rows: None)
    fresh = query_fresh.add_hour(lake, events, END_MS + DAY_MS)
    snapshot = LakeTable(lake, SILVER_EVENTS).snapshot()
    assert abs(events - 40_000) < 1_000
    assert snapshot.rows == events + fresh
    tiers = [tier_of(path) for path in snapshot.paths]
    assert tiers.count(Tier.WARM) == DAYS - 7
    assert tiers.count(Tier.HOT) == 7 * 24 + 60
    low, high = snapshot.bounds("event_time")
    assert pa.compute.min(low).as_py().timestamp() * 1000 >= END_MS - DAYS * DAY_MS
    assert pa.compute.max(high).as_py().timestamp() * 1000 <= END_MS + DAY_MS
    ids = [row[0] for row in read_table(lake, SILVER_EVENTS, "event_id")]
    assert len(set(ids)) == events + fresh
    warm = pq.ParquetFile(snapshot.paths[tiers.index(Tier.WARM)]).metadata
    assert warm.row_group(0).num_rows <= KEPT_GROUP_ROWS


def test_clients_take_the_questions_in_turn() -> None:
    asked: list[Any] = []
    lock = threading.Lock()

    def ask(question: Any) -> list[list[Any]]:
        with lock:
            asked.append(question)
        return [[question]]

    done = query_load.answers([ask, ask], questions=[1, 2, 3], clients=2, most=7, seconds=60)
    assert sorted(asked) == [1, 1, 1, 2, 2, 3, 3]
    assert len(done["latencies_ms"]) == 7
    assert done["answer"] == [[1]]
    assert done["error"] is None


def test_what_cannot_be_answered_is_said() -> None:
    def ask(question: Any) -> list[list[Any]]:
        raise OSError("no such table")

    done = query_load.answers([ask], questions=[1], clients=1, most=5, seconds=60)
    assert done["error"] == "OSError: no such table"
