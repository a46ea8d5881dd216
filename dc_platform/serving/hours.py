"""The hours of gold.events_hourly without their sources, in a table in memory.

Gold has a row per hour, source and type: four million of 30 days of 1,000 sources, which take 60 ms to
add up. Most rollups name no source; for them each of gold's files is added up once, by hour and type.
Files do not change, so this is never a second truth: a query takes from here the files that its version
of gold has, and reads the others.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import duckdb

from dc_platform.lake.sql import sql_list
from dc_platform.lake.table import Snapshot

log = logging.getLogger(__name__)

# Some 50 MB. 30 days of 1,000 types are 720,000 rows.
_MOST_ROWS = 1_000_000
_COLUMNS = "tenant_id, hour, event_type, weight, row_count, first_event_time, last_event_time"
_TABLE = """
    file integer, tenant_id varchar, hour timestamptz, event_type varchar, weight decimal(38, 9),
    row_count bigint, first_event_time timestamptz, last_event_time timestamptz
"""
_ADDED_UP = """
    tenant_id, hour, event_type, sum(weight), sum(row_count)::bigint, min(first_event_time),
    max(last_event_time)
"""


@dataclass(frozen=True)
class Hours:
    """Files of gold whose rows are in `table`, by their numbers there."""

    table: str = ""
    files: Mapping[str, int] = field(default_factory=dict)

    def sql(self, paths: Sequence[str]) -> str:
        """A SELECT of the rows of files that are here."""
        numbers = ", ".join(str(self.files[path]) for path in paths)
        return f"select {_COLUMNS} from {self.table} where file in ({numbers})"


NO_HOURS = Hours()


@dataclass(eq=False)
class _Table:
    hours: Hours
    readers: int = 0


class HeldHours:
    """Follows the versions of gold that queries have, in a thread of its own. Thread-safe."""

    def __init__(self, instance: duckdb.DuckDBPyConnection) -> None:
        self._instance = instance
        self._lock = threading.Lock()
        self._table = _Table(NO_HOURS)
        self._old: list[_Table] = []
        self._tables = self._files = 0
        self._seen: Snapshot | None = None
        self._busy = False
        self._thread = ThreadPoolExecutor(1, "hours")

    @contextmanager
    def of(self, gold: Snapshot | None) -> Iterator[Hours]:
        """What is here, for as long as a query over this version runs."""
        if gold is None:
            yield NO_HOURS
            return
        with self._lock:
            table = self._table
            table.readers += 1
            if self._seen is not gold and not self._busy:
                self._seen, self._busy = gold, True
                self._thread.submit(self._take, gold)
        try:
            yield table.hours
        finally:
            with self._lock:
                table.readers -= 1

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    # --- in the thread ---

    def _take(self, gold: Snapshot) -> None:
        try:
            with self._instance.cursor() as cursor:
                self._renew(cursor, gold)
        except duckdb.Error as error:
            # A file that vacuum took meanwhile, or no memory: queries read the files.
            log.warning("hours of gold: %s", error)
        finally:
            with self._lock:
                self._busy = False

    def _renew(self, cursor: duckdb.DuckDBPyConnection, gold: Snapshot) -> None:
        """Another table, with the rows of the files that this version has; the newest come first."""
        before = self._table.hours
        self._tables += 1
        name = f"recent.hours_{self._tables}"
        cursor.execute(f"create table {name} ({_TABLE})")
        files: dict[str, int] = {}
        rows = 0
        for path in sorted(gold.paths, reverse=True):
            if path in before.files:
                found = f"file, {_COLUMNS} from {before.table} where file = {before.files[path]}"
                files[path] = before.files[path]
            else:
                self._files += 1
                source = f"read_parquet({sql_list([path])}, hive_partitioning = false)"
                found = f"{self._files}, {_ADDED_UP} from {source} group by all"
                files[path] = self._files
            added = cursor.execute(f"insert into {name} select {found}").fetchone()
            rows += added[0] if added else 0
            if rows > _MOST_ROWS:
                break
        cursor.execute("checkpoint recent")
        with self._lock:
            self._old.append(self._table)
            self._table = _Table(Hours(name, files))
            gone = [old for old in self._old if not old.readers]
            self._old = [old for old in self._old if old.readers]
        for old in gone:
            if old.hours.table:
                cursor.execute(f"drop table {old.hours.table}")
