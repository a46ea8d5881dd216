"""DuckDB over a view of the union.

One instance per process, so memory and threads are bounded for all queries together. It may read
files below the lake and the tail's directory only, its settings are locked, and each query has a
cursor with temporary views of its own: the tables it asked for, at one moment, of one tenant.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from dc_platform.contracts.tables import SILVER_EVENTS, TABLES, TableSpec
from dc_platform.lake.sql import sql_list, sql_text, table_sql
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.serving.guard import OWN, Guard, view_name
from dc_platform.serving.own_tables import OwnTables, ShapesOf, no_shapes
from dc_platform.serving.recent import Held, RecentRows
from dc_platform.serving.rows import Clock, Rows
from dc_platform.serving.sketch_functions import SketchFunctions
from dc_platform.serving.view import View
from dc_platform.settings import Settings

_SNAPSHOT_SECONDS = 0.2


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
        self._timeout = settings.query_timeout_seconds
        self._guard = Guard()
        self._snapshots = Snapshots(lake)
        self._specs = {spec.name: spec for spec in TABLES}
        tail = settings.data_dir.absolute() / "tail"
        # Where DuckDB spills to.
        self.temporary = settings.data_dir.absolute() / "query-tmp"
        for directory in (tail, self.temporary, Path(lake.uri)):
            directory.mkdir(parents=True, exist_ok=True)
        self._instance = duckdb.connect(
            config={
                "threads": settings.query_threads,
                "memory_limit": f"{settings.query_memory_mb}MB",
                "temp_directory": str(self.temporary),
                "python_enable_replacements": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            }
        )
        for statement in (
            "set global TimeZone = 'UTC'",
            f"set allowed_directories = {sql_list([str(Path(lake.uri).absolute()), str(tail)])}",
            "set enable_external_access = false",
            "set parquet_metadata_cache = true",
            "set lock_configuration = true",
        ):
            self._instance.execute(statement)
        self._sketches = SketchFunctions(self._instance)
        self._recent = RecentRows(self._instance, memory_mb=settings.recent_memory_mb)

    @contextmanager
    def run_sql(
        self,
        sql: str,
        view: View,
        *,
        tenant_id: str,
        parameters: Sequence[Any] = (),
        wide: str = "bignum",
        starts: Callable[[Clock], None] = lambda clock: None,
    ) -> Iterator[Rows]:
        """Run SQL that a person wrote; gives its rows as a stream. Integers too wide for Arrow come
        as `wide`: DuckDB's bignum, or varchar. `starts` gets what interrupts it, before it runs.
        """
        guarded = self._guard.check(sql)
        with self._cursor() as cursor, self._recent.of(view) as held:
            for table in guarded.tables:
                self._create_view(cursor, table, view, tenant_id, held)
            clock = Clock(cursor, self._timeout)
            starts(clock)
            with self._sketches.named_on(cursor, clock, guarded.functions):
                yield Rows(cursor, clock, guarded.sql, parameters, wide=wide)

    @contextmanager
    def run_on_events(
        self,
        sql: str,
        view: View,
        *,
        tenant_id: str,
        parameters: dict[str, Any],
        from_us: int | None,
        to_us: int | None,
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor on which our own SQL over `events` has been executed."""
        with self._cursor() as cursor, self._recent.of(view) as held:
            if not held.tail:
                cursor.register("tail", view.tail)
            cursor.execute(
                f"create temp view events as select * from ({view.union_sql(from_us, to_us, held)})"
                f" where tenant_id = {sql_text(tenant_id)}"
            )
            with Clock(cursor, self._timeout).running():
                yield cursor.execute(sql, parameters)

    @contextmanager
    def run_own(
        self, sql: str, parameters: dict[str, Any], **relations: pa.Table
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor on which our own SQL over `relations`, and over files of the lake and the tail, has
        been executed.
        """
        with self._cursor() as cursor:
            for name, table in relations.items():
                cursor.register(name, table)
            with Clock(cursor, self._timeout).running():
                yield cursor.execute(sql, parameters)

    def close(self) -> None:
        """End what goes on beside the queries."""
        self._recent.close()

    def snapshot(self, spec: TableSpec, view: View) -> Snapshot:
        """A table as a query over `view` sees it."""
        return view.silver if spec is SILVER_EVENTS else self._snapshots.of(spec)

    def _create_view(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: str,
        view: View,
        tenant_id: str,
        held: Held,
    ) -> None:
        name = view_name(table)
        where = f"where tenant_id = {sql_text(tenant_id)}"
        if table == "events" or table.startswith("typed."):
            if not held.tail:
                cursor.register("tail", view.tail)
            events = f"select * from ({view.union_sql(held=held)}) {where}"
        else:
            events = ""
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
        cursor.execute(f"create temp view {name} as {body}")

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._instance.cursor()
        try:
            yield cursor
        finally:
            cursor.close()
