"""DuckDB over a view of the union.

Our own SQL runs in one instance (`cursors.py`), so memory and threads are bounded for all queries
together; light ones run in other processes (`light.py`), and SQL that people wrote in processes that
may die of it. All of them may read files below the lake, and of the tail's directory, only, their
settings are locked, and each query has a cursor with temporary views of its own: the tables it asked
for, at one moment, of one tenant.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.contracts.sketch_tables import METRICS_HOURLY
from dc_platform.contracts.spec import GoldSpec
from dc_platform.contracts.tables import SILVER_EVENTS, TABLES, TableSpec
from dc_platform.lake.sql import table_sql
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.serving.cache import ResultCache
from dc_platform.serving.conditions import Equality
from dc_platform.serving.covered import Coverage
from dc_platform.serving.cursors import SHARE, Cursors
from dc_platform.serving.guard import (
    OWN,
    At,
    Guard,
    RefusedError,
    is_timed,
    not_timed,
    view_name,
)
from dc_platform.serving.instance import Bounds
from dc_platform.serving.needles import Found, Needles
from dc_platform.serving.own_tables import OwnTables, ShapesOf, no_shapes
from dc_platform.serving.recent import Held
from dc_platform.serving.results import Format
from dc_platform.serving.rows import Clock, Deadlines, all_rows, rows_in_time
from dc_platform.serving.sql_pool import Running, Workers
from dc_platform.serving.sql_worker import Asked
from dc_platform.serving.tail_files import TailFiles
from dc_platform.serving.view import NOTHING, View
from dc_platform.settings import Settings

_SNAPSHOT_SECONDS = 0.2
# The view as of an older version.
PastViews = Callable[[At], View]


def _only_now(_at: At) -> View:
    raise RefusedError("AT (…) is not for this query.")


class Snapshots:
    """Newest snapshots of the tables beside silver.events, at most 0.2 s old."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[LakeTable, Snapshot, float]] = {}

    def of(self, spec: TableSpec) -> Snapshot:
        """The snapshot of a table."""
        with self._lock:
            now = time.monotonic()
            found = self._tables.get(spec.name)
            if found is None:
                self._lake.ensure(spec)
                table = LakeTable(self._lake, spec)
                found = (table, table.snapshot(), now)
            elif now - found[2] > _SNAPSHOT_SECONDS:
                table, snapshot, _ = found
                if table.refresh() != snapshot.version:
                    snapshot = table.snapshot()
                found = (table, snapshot, now)
            self._tables[spec.name] = found
            return found[1]


class Engine:
    """Runs guarded SQL. Thread-safe."""

    def __init__(self, settings: Settings, lake: Lake, shapes: ShapesOf = no_shapes) -> None:
        self._own = OwnTables(lake, shapes)
        self._deadlines = Deadlines(settings.query_timeout_seconds)
        self._guard = Guard()
        self._snapshots = Snapshots(lake)
        self._coverage = {
            spec.name: Coverage(lake, spec) for spec in (EVENTS_HOURLY, METRICS_HOURLY)
        }
        self.answers = ResultCache(settings.query_cache_mb * 2**20)
        self._specs = {spec.name: spec for spec in TABLES}
        tail = settings.data_dir.absolute() / "tail"
        # Where DuckDB spills to.
        self.temporary = settings.data_dir.absolute() / "query-tmp"
        for directory in (tail, self.temporary, Path(lake.uri)):
            directory.mkdir(parents=True, exist_ok=True)
        self._needles = Needles(
            lake, threads=settings.query_threads, seconds=settings.query_timeout_seconds
        )
        bounds = Bounds(
            settings.query_threads,
            settings.query_memory_mb,
            self.temporary,
            settings.query_temp_mb,
            [str(Path(lake.uri).absolute()), str(tail)],
        )
        for_sql = replace(
            bounds,
            memory_mb=settings.sql_memory_mb,
            temporary_mb=settings.query_temp_mb // settings.sql_concurrency,
        )
        self._workers = Workers(for_sql, seconds=settings.query_timeout_seconds)
        self._tail_files = TailFiles(tail)
        self._cursors = Cursors(bounds, recent_memory_mb=settings.recent_memory_mb, share=SHARE)

    def start(self) -> None:
        """Have a process ready for SQL; returns at once."""
        self._workers.start()

    @contextmanager
    def run_sql(
        self,
        sql: str,
        view: View,
        *,
        tenant_id: str,
        past: PastViews = _only_now,
        parameters: Sequence[Any] | Mapping[str, Any] = (),
        format_: Format = "arrow",
        limit: int | None = None,
        starts: Callable[[Running], None] = lambda running: None,
    ) -> Iterator[Iterator[bytes]]:
        """Run SQL that a person wrote, in a process of its own; gives the answer in parts, of which the
        first may be all of the work. `past` gives the views of AT (…). `starts` gets what ends the
        query, before it runs.
        """
        guarded = self._guard.check(sql)
        views = [self._view_sql(view_name(t), t, view, tenant_id) for t in guarded.tables]
        for name, (table, at) in guarded.past.items():
            views.append(self._view_sql(name, table, past(at), tenant_id))
        tail = self._tail_files.of(view) if any(map(_has_tail, guarded.tables)) else []
        asked = Asked(views, tail, guarded.sql, parameters, format_, limit)
        with self._workers.running(tenant_id) as running:
            starts(running)
            yield running.parts(asked)

    def run_named(
        self, sql: str, view: View, *, tenant_id: str, parameters: Sequence[Any] = ()
    ) -> pa.Table:
        """The rows of our own SQL over tables by their names, as people write it."""
        guarded = self._guard.check(sql)
        with (
            self._cursors.on(view) as (cursor, held),
            Clock(cursor, self._deadlines).running(),
        ):
            for table in guarded.tables:
                cursor.execute(self._view_sql(view_name(table), table, view, tenant_id, held))
            return all_rows(cursor.execute(guarded.sql, parameters))

    def run_on_events(
        self,
        sql: str,
        view: View,
        *,
        tenant_id: str,
        parameters: dict[str, Any],
        from_us: int | None,
        to_us: int | None,
        equalities: Sequence[Equality] = (),
        until: float | None = None,
    ) -> pa.Table:
        """The rows of our own SQL over `events`. `equalities` hold for all events that it looks at.
        `until`: a `deadline` that it shares with others.
        """
        until = self.deadline() if until is None else until
        with self._cursors.on(view) as (cursor, held):
            if equalities:
                span = (from_us, to_us)
                names = f"{sql} {view.where(tenant_id)}"
                view = self._needles.narrow(cursor, view, held, span, equalities, names, until)
            whole = view.sql_over_events(sql, tenant_id, from_us, to_us, held)
            return rows_in_time(cursor, whole, parameters, self._deadlines, until)

    @contextmanager
    def run_own(
        self, sql: str, parameters: dict[str, Any], **relations: pa.Table
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor on which our own SQL over `relations`, and over files of the lake and the tail, has
        been executed.
        """
        with self._cursors.on() as (cursor, _):
            for name, table in relations.items():
                cursor.register(name, table)
            with Clock(cursor, self._deadlines).running():
                yield cursor.execute(sql, parameters)

    def run_planned(
        self,
        sql: Callable[[Held], str],
        view: View,
        parameters: dict[str, Any],
        *,
        hourly: Snapshot | None = None,
        gold_rows: int | None = None,
        until: float | None = None,
    ) -> pa.Table:
        """The rows of our own SQL over parts of a view; `sql` makes it of what is held in memory, of
        `hourly`, a version of gold.events_hourly, too. `gold_rows`: these are so many rows of gold, and
        no others; None: not known.
        """
        with self._cursors.on(view, hourly) as (cursor, held):
            return rows_in_time(cursor, sql(held), parameters, self._deadlines, until)

    def deadline(self) -> float:
        """When a query that begins now must have ended, by `time.monotonic`."""
        return time.monotonic() + self._deadlines.seconds

    def found(
        self, view: View, from_us: int | None, to_us: int | None, equalities: Sequence[Equality]
    ) -> Found:
        """What the indexes of payload fields tell of a query."""
        with self._cursors.on(view) as (cursor, held):
            return self._needles.find(cursor, view, held, (from_us, to_us), equalities)

    def close(self) -> None:
        """End what goes on beside the queries."""
        self._workers.close()
        self._cursors.close()
        self._needles.close()

    def coverage(self, spec: GoldSpec) -> Coverage:
        """Which hours an hourly table of gold can answer."""
        return self._coverage[spec.name]

    def snapshot(self, spec: TableSpec, view: View) -> Snapshot:
        """A table as a query over `view` sees it."""
        return view.silver if spec is SILVER_EVENTS else self._snapshots.of(spec)

    def _view_sql(
        self, name: str, table: str, view: View, tenant_id: str, held: Held = NOTHING
    ) -> str:
        """What makes the view that stands for a table."""
        if view.hidden is not None and not is_timed(table):
            raise not_timed(table)
        where = view.where(tenant_id)
        events = view.events_sql(tenant_id, held=held) if _has_tail(table) else ""
        if table == "events":
            body = events
        elif OWN.fullmatch(table):
            body = self._own.sql(table, tenant_id, events)
        else:
            spec = self._specs[table]
            snapshot = self.snapshot(spec, view)
            if "tenant_id" not in spec.columns.names:
                where = ""
            body = f"select * from ({table_sql(spec, snapshot)}) {where}"
        return f"create temp view {name} as {body}"


def _has_tail(table: str) -> bool:
    """Whether a table is of the union."""
    return table == "events" or table.startswith("typed.")
