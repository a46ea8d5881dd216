"""Cursors for our own SQL: of an instance that has rows in memory, or of one that has many threads.

DuckDB divides the work of each query among all threads of its instance, whatever there is to do. Of a
query that takes 2.0 ms with one thread two make 3.5 ms of CPU time, and 2.6 ms until the answer; so
queries that find their rows in memory, and few others in files, have an instance with one thread. Those
that read many rows from files have one with DCP_QUERY_THREADS, and nothing in memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import duckdb

from dc_platform.lake.table import Snapshot
from dc_platform.serving.instance import Bounds, bounded, lock
from dc_platform.serving.recent import Held, RecentRows
from dc_platform.serving.view import NOTHING, View

log = logging.getLogger(__name__)

# Two of Parquet's row groups of silver, which are what threads share.
FEW_ROWS = 250_000
# Of the disk that queries may spill to, the part of those with one thread.
_SHARE = 4


class Cursors:
    """Two instances within `bounds` each, which share the disk of these; `recent_memory_mb` is what the
    newest rows may take. Thread-safe.
    """

    def __init__(self, bounds: Bounds, *, recent_memory_mb: int) -> None:
        few = bounds.temporary_mb // _SHARE
        self._few_bounds = replace(
            bounds, threads=1, temporary=bounds.temporary / "few", temporary_mb=few
        )
        self._many_bounds = replace(
            bounds,
            temporary=bounds.temporary / "many",
            temporary_mb=bounds.temporary_mb - few,
        )
        self._recent_memory_mb = recent_memory_mb
        self._renewing = threading.Lock()
        self.recent = self._of_few()
        self.many = self._of_many()

    @contextmanager
    def few(
        self, view: View, hourly: Snapshot | None = None
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, Held]]:
        """A cursor of the instance with one thread, and what of a view, and of `hourly`, a version of
        gold.events_hourly, is in its memory; the rest of the view's tail is `tail`.
        """
        recent = self.recent
        with self._cursor(recent.instance) as cursor, recent.of(view, hourly) as held:
            _show_tail(cursor, view, held)
            yield cursor, held

    @contextmanager
    def of_files(self, view: View | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of the instance with all threads; all of the view's tail is `tail`."""
        with self._cursor(self.many) as cursor:
            if view is not None:
                _show_tail(cursor, view, NOTHING)
            yield cursor

    def close(self) -> None:
        """End what goes on beside the queries."""
        self.recent.close()

    @contextmanager
    def _cursor(self, instance: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = instance.cursor()
        try:
            yield cursor
        except (duckdb.InternalException, duckdb.FatalException) as error:
            # DuckDB answers nothing any more after an error of its own.
            self._renew(instance, error)
            raise
        finally:
            cursor.close()

    def _renew(self, instance: duckdb.DuckDBPyConnection, error: Exception) -> None:
        """Another instance in place of this one, if that has not been done."""
        with self._renewing:
            recent = self.recent
            if instance is self.many:
                log.error("DuckDB begins anew after %s", error)
                self.many = self._of_many()
            elif instance is recent.instance:
                log.error("DuckDB begins anew after %s", error)
                self.recent = self._of_few()
                recent.close()

    def _of_few(self) -> RecentRows:
        instance = bounded(self._few_bounds)
        recent = RecentRows(instance, memory_mb=self._recent_memory_mb)
        lock(instance, self._few_bounds)
        return recent

    def _of_many(self) -> duckdb.DuckDBPyConnection:
        instance = bounded(self._many_bounds)
        lock(instance, self._many_bounds)
        return instance


def _show_tail(cursor: duckdb.DuckDBPyConnection, view: View, held: Held) -> None:
    if not held.tail and view.tail_rows:
        cursor.register("tail", view.tail)
