"""Cursors of an instance of DuckDB: it begins anew after an error of its own, and spills apart."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
import pytest

from dc_platform.serving.cursors import Cursors
from dc_platform.serving.instance import remove_spilled
from dc_platform.serving.light import Light
from dc_platform.serving.view import View
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.serving import SPILLING, Served, view
from dc_platform_tests.serving.conftest import lines
from dc_platform_tests.stack.harness import wait_for


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """Three events in silver and two in the tail."""
    served = Served(tmp_path, query_memory_mb=64, query_threads=2)
    served.view = view(served.lake, [block(lines(0, 3))], [[block(lines(3, 5), 1)]])
    return served


def count(cursors: Cursors, seen: View) -> int:
    with cursors.on(seen) as (cursor, held):
        sql = f"select count(*) from ({seen.union_sql(held=held)})"
        [(found,)] = cursor.execute(sql).fetchall()
        return int(found)


def test_an_error_of_duckdbs_own_ends_nothing_but_its_query(served: Served) -> None:
    own = served.engine._cursors
    assert served.view is not None
    before = own.recent
    opened = own.on(served.view)
    with pytest.raises(duckdb.FatalException), opened:
        raise duckdb.FatalException("the database has been invalidated")
    assert own.recent is not before
    assert count(own, served.view) == 5
    with pytest.raises(duckdb.Error):
        own.recent.instance.execute("set enable_external_access = true")


@pytest.mark.parametrize("what", ["recent rows", "hours of gold"])
def test_a_checkpoint_that_ruined_the_newest_rows_is_no_end(
    served: Served, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    own = served.engine._cursors
    seen = served.view
    assert seen is not None
    before = own.recent

    def failing(*_: Any, **__: Any) -> None:
        raise duckdb.IOException('IO Error: Database "recent" has been invalidated')

    of = before if what == "recent rows" else before._hours
    monkeypatch.setattr(of, "_take" if of is before else "_renew", failing)
    assert count(own, seen) == 5
    with own.on(seen, seen.silver):
        pass
    wait_for(lambda: before.ruined is not None)
    assert count(own, seen) == 5
    assert own.recent is not before
    # Or a query is the first that it happens to.
    before = own.recent
    with pytest.raises(duckdb.IOException), own.on(seen):
        failing()
    assert own.recent is not before
    with pytest.raises(duckdb.IOException), own.on(seen):
        raise duckdb.IOException("No such file")
    assert count(own, seen) == 5


def test_no_two_instances_spill_to_one_directory(served: Served) -> None:
    own = served.engine._cursors
    light = Light(served.settings, served.lake)

    def directory(of: Cursors) -> Path:
        sql = "select current_setting('temp_directory')"
        [(found,)] = of.recent.instance.execute(sql).fetchall()
        return Path(found)

    # What runs on the old one goes on.
    with own.on() as (old, _):
        before = directory(own)
        with pytest.raises(duckdb.FatalException), own.on():
            raise duckdb.FatalException("the database has been invalidated")
        assert len({before, directory(own), directory(light.cursors)}) == 3
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
