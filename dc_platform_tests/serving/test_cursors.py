"""Two instances: one thread for light queries, all threads for the others; the answers are the same."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest

from dc_platform.serving.cursors import Cursors
from dc_platform.serving.instance import remove_spilled
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.serving import SPILLING, Served, view
from dc_platform_tests.serving.conftest import lines
from dc_platform_tests.stack.harness import wait_for

PLAIN = "count(*)"
# What reads a payload.
OF_PAYLOAD = "count(payload)"


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """Three events in silver, which are in memory, and two in the tail."""
    served = Served(tmp_path, query_threads=3)
    served.view = view(served.lake, [block(lines(0, 3))], [[block(lines(3, 5), 1)]])
    wait_for(lambda: asked(served) == (1, 5))
    return served


def asked(
    served: Served, what: str = PLAIN, span: tuple[int | None, int | None] = (None, None)
) -> tuple[int, int]:
    """Threads of the instance that counts, and what it has counted."""
    assert served.view is not None
    table = served.engine.run_on_events(
        f"select current_setting('threads')::integer as threads, {what} as n from events",
        served.view,
        tenant_id="default",
        parameters={},
        from_us=span[0],
        to_us=span[1],
    )
    return table["threads"][0].as_py(), table["n"][0].as_py()


def test_light_queries_have_one_thread(served: Served) -> None:
    assert asked(served, OF_PAYLOAD) == (3, 5)
    assert served.view is not None
    # What was deleted since may be told by the payload.
    hidden = "event_id = 'none' or payload like '%none%'"
    served.view = replace(served.view, hidden=hidden)
    assert asked(served) == (3, 5)


def test_only_rows_of_the_range_need_be_in_memory(served: Served) -> None:
    served.engine._light.recent.close()
    tail = served.view
    assert tail is not None
    # A file, and then a chunk, that only the other instance gets.
    later = view(served.lake, [block(lines(100, 103), 1)], [[block(lines(200, 202), 9)]])
    served.view = replace(tail, silver=later.silver)
    assert asked(served) == (3, 8)
    assert asked(served, span=(None, (NOW + 50_000) * 1000)) == (1, 5)
    served.view = replace(tail, chunks=(*tail.chunks, *later.chunks))
    assert asked(served) == (3, 7)


def test_a_spilled_tail_has_all(tmp_path: Path) -> None:
    served = Served(tmp_path, query_threads=3)
    chunks = [[block(lines(3, 5), 1)]]
    served.view = view(served.lake, [block(lines(0, 3))], chunks, spill=served.tail_directory)
    files = len(served.view.silver.paths)
    with served.engine._light.holding(served.view, None, None):
        pass
    wait_for(lambda: len(served.engine._light.recent._table.files) == files)
    assert asked(served) == (3, 5)


def test_what_one_thread_has_no_memory_for_the_other_answers(tmp_path: Path) -> None:
    served = Served(tmp_path, query_memory_mb=64, query_threads=2)
    served.view = view(served.lake, [block(lines(0, 3))])
    wait_for(lambda: asked(served) == (1, 3))
    assert asked(served, f"max(({SPILLING}))") == (2, 1_000_000)
    assert asked(served) == (1, 3)


@pytest.mark.parametrize("light", [False, True])
def test_an_error_of_duckdbs_own_ends_nothing_but_its_query(served: Served, *, light: bool) -> None:
    engine = served.engine
    assert served.view is not None
    both = (engine._light, engine._cursors)
    failing = both[0 if light else 1]
    before = [each.recent for each in both]
    opened = failing.on(served.view)
    with pytest.raises(duckdb.FatalException), opened:
        raise duckdb.FatalException("the database has been invalidated")
    kept = [each.recent is old for each, old in zip(both, before, strict=True)]
    assert kept == [not light, light]
    assert asked(served, OF_PAYLOAD) == (3, 5)
    wait_for(lambda: asked(served) == (1, 5))
    for each in both:
        with pytest.raises(duckdb.Error):
            each.recent.instance.execute("set enable_external_access = true")


def test_no_two_instances_spill_to_one_directory(tmp_path: Path) -> None:
    served = Served(tmp_path, query_memory_mb=64, query_threads=2)
    own = served.engine._cursors

    def directory(of: Cursors) -> Path:
        sql = "select current_setting('temp_directory')"
        [(found,)] = of.recent.instance.execute(sql).fetchall()
        return Path(found)

    # What runs on the old one goes on.
    with own.on() as (old, _):
        before = directory(own)
        with pytest.raises(duckdb.FatalException), own.on():
            raise duckdb.FatalException("the database has been invalidated")
        assert len({before, directory(own), directory(served.engine._light)}) == 3
        for cursor in (old, own.recent.instance):
            assert cursor.execute(SPILLING).fetchall() == [(1_000_000,)]
    with served.engine.run_own(SPILLING, {}) as cursor:
        assert cursor.fetchall() == [(1_000_000,)]


def test_what_killed_processes_spilled_goes(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [f"{kind}-{dead.pid}-7" for kind in ("own", "sql")]
    stay = [f"own-{os.getpid()}-7", "duckdb_temp_storage_DEFAULT-0.tmp"]
    for name in (*gone, *stay):
        (tmp_path / name).mkdir()
        (tmp_path / name / "block").write_text("x")
    remove_spilled(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(stay)


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
