"""The hours of gold.events_hourly without their sources, in a table in memory.

Gold has a row per hour, source and type: four million of 30 days of 1,000 sources, which take 60 ms to
add up. Most rollups name no source; for them each of gold's files is added up once, by hour and type.
Files do not change, so this is never a second truth: a query takes from here the files that its version
of gold has, and reads the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import duckdb

from dc_platform.lake.sql import sql_list
from dc_platform.lake.table import Snapshot
from dc_platform.serving.instance import is_the_end

log = logging.getLogger(__name__)

# So long nothing is tried again that failed: no query waits for it.
_PAUSE_SECONDS = 10.0
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


def copied(
    instance: duckdb.DuckDBPyConnection,
    what: str,
    copy: Callable[[duckdb.DuckDBPyConnection], None],
    drop_old: Callable[[duckdb.DuckDBPyConnection], None],
    end: Callable[[duckdb.Error], None],
) -> bool:
    """Whether rows could be copied into memory; where not, queries read the files. What is old goes in
    either case. `end` is called when the instance is of no use any more.
    """
    done = False
    try:
        with instance.cursor() as cursor:
            try:
                copy(cursor)
                done = True
            finally:
                drop_old(cursor)
    except duckdb.Error as error:
        # A file that vacuum took meanwhile, or no memory.
        log.warning("%s: %s", what, error)
        if is_the_end(error):
            end(error)
    except Exception:
        log.exception(what)
    return done


@dataclass(eq=False)
class _Table:
    hours: Hours
    readers: int = 0


class HeldHours:
    """Follows the versions of gold that queries have, in a thread of its own. Thread-safe. `writing` is
    held by whoever writes into the attached database: no checkpoint passes while others do.
    """

    def __init__(
        self,
        instance: duckdb.DuckDBPyConnection,
        writing: threading.Lock,
        end: Callable[[duckdb.Error], None],
    ) -> None:
        self._instance = instance
        self._end = end
        self._writing = writing
        self._lock = threading.Lock()
        self._table = _Table(NO_HOURS)
        self._old: list[_Table] = []
        self._tables = self._files = 0
        self._seen: Snapshot | None = None
        self._busy = False
        self._not_before = 0.0
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
            self._follow(gold)
        try:
            yield table.hours
        finally:
            with self._lock:
                table.readers -= 1

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _follow(self, gold: Snapshot) -> None:
        if self._seen is gold or self._busy or time.monotonic() < self._not_before:
            return
        try:
            self._thread.submit(self._take, gold)
        except RuntimeError as error:
            # It has ended, with an instance that is no more, or there is no memory for it.
            log.warning("hours of gold: %s", error)
            self._not_before = time.monotonic() + _PAUSE_SECONDS
            return
        self._seen, self._busy = gold, True

    # --- in the thread ---

    def _take(self, gold: Snapshot) -> None:
        done = False
        try:
            done = copied(
                self._instance,
                "hours of gold",
                lambda cursor: self._renew(cursor, gold),
                self._drop_old,
                self._end,
            )
        finally:
            with self._lock:
                self._busy = False
                if not done:
                    self._seen, self._not_before = None, time.monotonic() + _PAUSE_SECONDS

    def _renew(self, cursor: duckdb.DuckDBPyConnection, gold: Snapshot) -> None:
        """Another table, with the rows of the files that this version has."""
        self._tables += 1
        name = f"recent.hours_{self._tables}"
        self._write(cursor, f"create table {name} ({_TABLE})")
        gone = _Table(Hours(name))
        try:
            files = self._fill(cursor, name, gold)
            self._write(cursor, "checkpoint recent")
            with self._lock:
                gone, self._table = self._table, _Table(Hours(name, files))
        finally:
            with self._lock:
                self._old.append(gone)

    def _fill(self, cursor: duckdb.DuckDBPyConnection, name: str, gold: Snapshot) -> dict[str, int]:
        """Write the rows, the newest first; the files, by their numbers."""
        before = self._table.hours
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
            rows += self._write(cursor, f"insert into {name} select {found}")
            if rows > _MOST_ROWS:
                break
        return files

    def _write(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> int:
        """Execute what writes; the rows that it wrote."""
        with self._writing:
            written = cursor.execute(sql).fetchone()
        return int(written[0]) if written and isinstance(written[0], int) else 0

    def _drop_old(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Tables that no query reads any more; one that stays is tried again with the next."""
        with self._lock:
            gone = [old for old in self._old if not old.readers]
        for old in gone:
            if old.hours.table:
                self._write(cursor, f"drop table {old.hours.table}")
            with self._lock:
                self._old.remove(old)
