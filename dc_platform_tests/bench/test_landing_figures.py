"""What the landing bench makes of its drains: medians, ratios, the table; and what it refuses."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from benchmarks.landing.peers import SPARK_JARS, spark_drains
from benchmarks.landing.ratios import ratios, table
from dc_platform.bench.contenders import Drained, check_events, check_rows
from dc_platform.bench.landing import figures
from dc_platform.bench.measure import BenchFailedError, Cost, run_child
from dc_platform.stack.artifacts import parse_pins


def drained(seconds: float, from_start: float | None = None) -> Drained:
    return Drained(1_000, seconds, from_start, cpu_seconds=seconds * 2, peak_rss_mb=100.4)


@pytest.fixture
def measured() -> dict[str, float]:
    ndjson = {
        ("platform", ""): [drained(1, 4), drained(2, 5), drained(9, 12)],
        ("plain_loop", ""): [drained(1, 2)],
        ("spark", "cold"): [drained(10, 20)],
        ("spark", "warm"): [drained(5), drained(3)],
        ("dlt", ""): [drained(8, 10)],
    }
    arrow = {("platform", ""): [drained(1, 2)], ("plain_loop", ""): [drained(0.5, 1)]}
    return figures("ndjson", ndjson) | figures("arrow", arrow)


def test_figures_are_medians_under_the_name_of_the_contender(measured: dict[str, float]) -> None:
    assert measured["ndjson_events_per_second"] == 500
    assert measured["ndjson_from_start_events_per_second"] == 200
    assert measured["ndjson_cpu_seconds"] == 4
    assert measured["ndjson_peak_rss_mb"] == 100
    assert measured["ndjson_ratio"] == 0.5
    assert measured["ndjson_spark_warm_events_per_second"] == pytest.approx(267, abs=1)
    assert "ndjson_spark_warm_from_start_events_per_second" not in measured


def test_a_ratio_is_taken_on_the_same_topic(measured: dict[str, float]) -> None:
    assert ratios(measured, ["ndjson"]) == {
        "ndjson_vs_spark_warm": 1.87,
        "ndjson_vs_spark_cold_started": 5.0,
        "ndjson_vs_spark_cold": 4.0,
        "ndjson_vs_dlt": 4.0,
    }


def test_arrow_stands_beside_what_spark_does_with_ndjson(measured: dict[str, float]) -> None:
    found = ratios(measured, ["arrow"])
    assert found["arrow_vs_spark_ndjson_warm"] == 3.75
    assert found["arrow_vs_spark_ndjson_cold"] == 10.0
    assert "arrow_vs_spark_warm" not in found


def test_the_table_has_a_row_for_each_that_was_measured(measured: dict[str, float]) -> None:
    rows = table(measured, ["ndjson", "arrow"]).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows] == ["ndjson"] * 5 + ["arrow"] * 2
    assert "| 500 | 200 | 4.0 | 100 |" in rows[0]


def test_only_sparks_first_drain_has_the_start_of_the_jvm() -> None:
    each = {"seconds": 2.0, "cpu_seconds": 1.0, "peak_rss_mb": 900.0}
    result = {"drains": [each | {"ended_at": 107.0}, each | {"ended_at": 109.0}]}
    drains = spark_drains(Cost(result, 9.0, 50.0, started_at=100.0, wall_seconds=10.0), 1_000)
    assert [d.from_start_seconds for d in drains["cold"]] == [7.0]
    assert [d.from_start_seconds for d in drains["warm"]] == [None]


def test_sparks_jars_are_pinned() -> None:
    pins = parse_pins(SPARK_JARS.read_text())
    assert {pin.artifact for pin in pins} >= {"delta-spark_4.2_2.13", "kafka-clients"}
    assert all(len(pin.sha256) == 64 for pin in pins)


def test_a_table_that_lacks_or_doubles_an_event_fails_the_bench(tmp_path: Path) -> None:
    uri = tmp_path / "table"
    write_deltalake(uri, pa.table({"id": ["a", "b"]}))
    check_rows(uri, 2)
    check_events(uri, "id", 2)
    write_deltalake(uri, pa.table({"id": ["b"]}), mode="append")
    with pytest.raises(BenchFailedError, match="3 rows, not 2"):
        check_rows(uri, 2)
    with pytest.raises(BenchFailedError, match=r"\(3, 2\)"):
        check_events(uri, "id", 3)


_LEAVES_A_CHILD = """
import subprocess, sys, json
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("noise")
print(json.dumps({"child": child.pid}))
"""


def test_nothing_of_a_measured_program_is_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LEAVES_A_CHILD]
    cost = run_child(command, environment={}, log=tmp_path / "log")
    assert cost.wall_seconds > 0
    with suppress(psutil.NoSuchProcess):
        # Its new parent may be slow to take the exit code: then it is a zombie for a moment.
        child = psutil.Process(cost.result["child"])
        deadline = time.monotonic() + 10
        while child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
            time.sleep(0.01)
        assert child.status() == psutil.STATUS_ZOMBIE


def test_the_most_memory_that_a_program_held_is_known(tmp_path: Path) -> None:
    holds = "import time; b = b'x' * 200_000_000; del b; time.sleep(1); print('{}')"
    cost = run_child([sys.executable, "-c", holds], environment={}, log=tmp_path / "log")
    assert 190 < cost.peak_rss_mb < 300


def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(BenchFailedError, match="ended with -9"):
        run_child(command, environment={}, log=tmp_path / "log", limit_seconds=0.5)


def test_a_program_that_fails_shows_its_last_lines(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('the reason')"]
    with pytest.raises(BenchFailedError, match="the reason"):
        run_child(command, environment={}, log=tmp_path / "log")
