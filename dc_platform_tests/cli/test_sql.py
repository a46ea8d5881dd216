"""`dcp sql` as people run it: rows without an end, reasons in one line, readers that take their time
or leave.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door
from dc_platform_tests.stack.harness import wait_for

# Rows at once, and then none for ever.
STUCK = (
    "select i from range(200000) t(i) union all"
    " select a.range from range(1000000) a, range(1000000) b where a.range * b.range = -1"
)
BREAKS = (
    "select case when i = 150000 then error('no such luck') else i::varchar end as v"
    " from range(200000) t(i)"
)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    served = Served(tmp_path_factory.mktemp("served"), query_timeout_seconds=1)
    served.view = view(served.lake, [])
    with Door(served).open() as opened:
        yield opened


def command(door: Door, sql: str, form: str = "json") -> list[str]:
    directory = str(door.served.settings.data_dir)
    start = [sys.executable, "-m", "dc_platform.cli.main", "sql", sql, "--format", form]
    return [*start, "--data-dir", directory]


def dcp_sql(door: Door, sql: str, form: str = "json") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(door, sql, form), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("form", ["json", "csv", "arrow", "table"])
@pytest.mark.parametrize(
    ("sql", "reason"), [(BREAKS, "no such luck"), (STUCK, "DCP_QUERY_TIMEOUT_SECONDS")]
)
def test_an_error_after_the_first_rows_is_told(
    door: Door, form: str, sql: str, reason: str
) -> None:
    if form == "arrow":
        asked = subprocess.run(command(door, sql, form), capture_output=True, check=False)
        code, error = asked.returncode, asked.stderr.decode()
    else:
        done = dcp_sql(door, sql, form)
        code, error = done.returncode, done.stderr
        assert len(done.stdout) > 100_000
    assert code == 1
    assert error.startswith("error: ")
    assert reason in error
    assert error.count("\n") == 1


def test_an_error_before_the_first_row_is_told(door: Door) -> None:
    done = dcp_sql(door, "select * from nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no table 'nowhere'" in done.stderr


def test_a_reader_may_take_longer_than_a_query(door: Door) -> None:
    sql = "select i, repeat('x', 200) as x from range(300000) t(i)"
    process = subprocess.Popen(command(door, sql), stdout=subprocess.PIPE)
    assert process.stdout is not None
    begin = process.stdout.read(1000)
    time.sleep(2.5)
    rows = json.loads(begin + process.stdout.read())
    assert process.wait(60) == 0
    assert [row["i"] for row in rows] == list(range(300_000))


def test_a_reader_that_has_seen_enough_is_no_error(door: Door) -> None:
    sql = "select i, repeat('x', 200) as x from range(300000) t(i)"
    process = subprocess.Popen(
        command(door, sql, "csv"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1000)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("340282366920938463463374607431768211455::uhugeint", str(2**128 - 1)),
        ("true", "true"),
        ("'infinity'::timestamp", "infinity"),
        ("timestamp '290000-01-01'", "290000-01-01T00:00:00.000"),
        ("row(1, 2)", "[1,2]"),
        ("1.50::decimal(5, 2)", "1.50"),
    ],
)
def test_a_table_shows_what_json_says(door: Door, value: str, printed: str) -> None:
    done = dcp_sql(door, f"select {value} as v", "table")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2:] == [printed, "(1 row)"]


def test_serving_that_is_away_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"query": "http://127.0.0.1:9"}))
    done = subprocess.run(
        [sys.executable, "-m", "dc_platform.cli.main", "sql", "select 1", "--data-dir", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "did not answer" in done.stderr
    assert "dcp status" in done.stderr


# --- what serving does when the reader leaves ---


@pytest.mark.parametrize("framed", ["true", "false"])
@pytest.mark.parametrize(
    "sql",
    [
        # The reader leaves while serving waits for him, and while DuckDB computes.
        "select i, repeat('x', 200) as x from range(100000000) t(i)",
        STUCK,
    ],
    ids=["waiting", "computing"],
)
def test_a_reader_that_leaves_frees_the_query(tmp_path: Path, sql: str, framed: str) -> None:
    served = Served(tmp_path, query_timeout_seconds=250)
    served.view = view(served.lake, [])
    with Door(served).open() as door:
        running = served.engine._workers._running
        headers = {**door.headers, "X-Framed": framed}
        with (
            httpx.Client(timeout=60) as client,
            client.stream(
                "POST", f"{door.url}/api/v1/sql", json={"sql": sql}, headers=headers
            ) as answer,
        ):
            assert answer.status_code == 200
            received = answer.iter_raw()
            assert next(received)
            time.sleep(0.5)
            assert len(running) == 1
        wait_for(lambda: not running, seconds=20)


def test_a_client_that_knows_no_frames_sees_the_connection_break(door: Door) -> None:
    with httpx.Client(timeout=60) as client, pytest.raises(httpx.RemoteProtocolError):
        client.post(f"{door.url}/api/v1/sql", json={"sql": BREAKS}, headers=door.headers)
