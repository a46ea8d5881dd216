"""Two instances: one thread for rows in memory and few others, all threads for many in files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dc_platform_tests.gold.lakes import land
from dc_platform_tests.gold.plain import count
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.lake import silver_row
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.serving.conftest import lines
from dc_platform_tests.serving.planned import Planned
from dc_platform_tests.stack.harness import wait_for

Limit = Callable[[int], None]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Sets how many rows are few."""
    return lambda rows: monkeypatch.setattr("dc_platform.serving.engine.FEW_ROWS", rows)


def asked(served: Served) -> tuple[int, int]:
    """Threads of the instance that counts all events, and their number."""
    assert served.view is not None
    table = served.engine.run_on_events(
        "select current_setting('threads')::integer as threads, count(*) as n from events",
        served.view,
        tenant_id="default",
        parameters={},
        from_us=None,
        to_us=None,
    )
    return table["threads"][0].as_py(), table["n"][0].as_py()


def test_rows_in_memory_have_one_thread(tmp_path: Path, few: Limit) -> None:
    few(0)
    served = Served(tmp_path, query_threads=3)
    served.view = view(served.lake, [block(lines(0, 3))], [[block(lines(3, 5), 1)]])
    assert asked(served) == (3, 5)
    wait_for(lambda: asked(served) == (1, 5))
    served.engine.close()


@pytest.mark.parametrize("spilled", [False, True])
def test_many_rows_that_are_not_in_memory_have_all_threads(
    tmp_path: Path, few: Limit, *, spilled: bool
) -> None:
    few(4)
    served = Served(tmp_path, query_threads=3, recent_memory_mb=0)
    spill = served.tail_directory if spilled else None
    served.view = view(served.lake, [block(lines(0, 3))], [[block(lines(3, 4), 1)]], spill=spill)
    assert asked(served) == (1, 4)
    served.view = None
    served.view = view(served.lake, [], [[block(lines(3, 5), 1)]], spill=spill)
    assert asked(served) == (3, 5)
    served.engine.close()


def test_answers_of_gold_have_them_too(
    tmp_path: Path, few: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dc_platform.gold.run.build", count)
    planned = Planned(tmp_path, query_cache_mb=0)
    start = NOW - NOW % HOUR
    land(planned.lake, [silver_row(n, event_time=(start + n * HOUR) * 1000) for n in range(5)])
    planned.gold()
    cursors = planned.served.engine.cursors
    used: list[str] = []

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *of: used.append(name) or real(*of)

    for name in ("few", "of_files"):
        monkeypatch.setattr(cursors, name, noted(name, getattr(cursors, name)))
    for rows in (250_000, 0):
        few(rows)
        # A source is named, so that no hours in memory will do.
        by_source = {"function": "COUNT", "groupBy": ["sourceId", "timestamp:1h"]}
        planned.ask(planned.view(), aggregations=[by_source])
    assert used == ["few", "few", "of_files"]
    planned.served.engine.close()


@pytest.mark.parametrize("many", [False, True])
def test_an_error_of_duckdbs_own_ends_nothing_but_its_query(tmp_path: Path, *, many: bool) -> None:
    served = Served(tmp_path)
    served.view = view(served.lake, [block(lines(0, 3))])
    cursors = served.engine.cursors

    def instances() -> tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection]:
        return cursors.recent.instance, cursors.many

    before = instances()
    opened = cursors.of_files() if many else cursors.few(served.view)
    with pytest.raises(duckdb.FatalException), opened:
        raise duckdb.FatalException("the database has been invalidated")
    kept = [new is old for new, old in zip(instances(), before, strict=True)]
    assert kept == [many, not many]
    assert asked(served) == (1, 3)
    for instance in instances():
        with pytest.raises(duckdb.Error):
            instance.execute("set enable_external_access = true")
    served.engine.close()


def test_they_share_the_disk(tmp_path: Path) -> None:
    served = Served(tmp_path, query_temp_mb=1000)
    cursors = served.engine.cursors
    bounds = [
        instance.execute(
            "select current_setting('max_temp_directory_size'), current_setting('temp_directory')"
        ).fetchone()
        for instance in (cursors.recent.instance, cursors.many)
    ]
    sizes, directories = zip(*(found for found in bounds if found), strict=True)
    assert sizes == ("238.4 MiB", "715.2 MiB")
    assert len(set(directories)) == 2
    served.engine.close()


_LOOKS_FOR = """
import sys
from pathlib import Path
from dc_platform.serving.instance import Bounds, bounded

class Noted:
    def find_spec(self, name, path=None, target=None):
        print(name)

instance = bounded(Bounds(1, 64, Path("."), 0, []))
instance.execute("select $a", {"a": "x"})
sys.meta_path.insert(1, Noted())
instance.execute("select $a", {"a": "x"})
try:
    import pandas
except ModuleNotFoundError as error:
    print("none:", error)
"""


@pytest.mark.skipif(find_spec("pandas") is not None, reason="there is pandas")
def test_no_query_looks_for_pandas() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOOKS_FOR], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "none: No module named 'pandas'\n"
