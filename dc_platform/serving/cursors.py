"""Cursors for our own SQL, of a DuckDB that has the newest rows in memory.

Serving has one with DCP_QUERY_THREADS, each process for light queries one with one thread and a copy of
the rows that came last.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import duckdb

from dc_platform.lake.table import Snapshot
from dc_platform.serving.instance import Bounds, bounded, is_the_end, lock, spill_name
from dc_platform.serving.recent import Held, RecentRows
from dc_platform.serving.view import NOTHING, Few, View

log = logging.getLogger(__name__)

# Of a core, for copying the newest rows into memory.
SHARE = 0.25


class Cursors:
    """One instance at a time within `bounds`; `recent_memory_mb` of its memory is for the newest rows,
    which are copied in a `share` of a core. Thread-safe.
    """

    def __init__(self, bounds: Bounds, *, recent_memory_mb: int, share: float) -> None:
        self._bounds = bounds
        self._recent_memory_mb = recent_memory_mb
        self._share = share
        self._renewing = threading.Lock()
        self.recent = self._open()

    @contextmanager
    def on(
        self, view: View | None = None, hourly: Snapshot | None = None
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, Held]]:
        """A cursor, and what of a view, and of `hourly`, a version of gold.events_hourly, is in memory;
        the rest of the view's tail is `tail`.
        """
        recent = self._whole()
        with self._cursor(recent) as cursor:
            if view is None:
                yield cursor, NOTHING
                return
            with recent.of(view, hourly) as held:
                _register_tail(cursor, view, held)
                yield cursor, held

    @contextmanager
    def holding(
        self, view: View, from_us: int | None, to_us: int | None, *, but: Few
    ) -> Iterator[tuple[duckdb.DuckDBPyConnection, Held] | None]:
        """The same where all rows of a time range are in memory, but for some; else None."""
        recent = self._whole()
        with recent.of(view) as held:
            if not view.is_held(from_us, to_us, held, but):
                yield None
                return
            with self._cursor(recent) as cursor:
                _register_tail(cursor, view, held)
                yield cursor, held

    def close(self) -> None:
        """End what goes on beside the queries."""
        self.recent.close()

    @contextmanager
    def _cursor(self, recent: RecentRows) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = recent.instance.cursor()
        try:
            yield cursor
        except duckdb.Error as error:
            if is_the_end(error):
                self._renew(recent, error)
            raise
        finally:
            cursor.close()

    def _whole(self) -> RecentRows:
        """The instance, another one where copying has ruined it."""
        recent = self.recent
        if recent.ruined is not None:
            self._renew(recent, recent.ruined)
        return self.recent

    def _renew(self, recent: RecentRows, error: Exception) -> None:
        with self._renewing:
            if self.recent is recent:
                log.error("DuckDB begins anew after %s", error)
                self.recent = self._open()
                recent.close()

    def _open(self) -> RecentRows:
        """A new instance, with its settings locked."""
        spill = self._bounds.temporary / spill_name("own")
        bounds = replace(self._bounds, temporary=spill)
        instance = bounded(bounds)
        recent = RecentRows(instance, memory_mb=self._recent_memory_mb, share=self._share)
        lock(instance, bounds)
        return recent


def _register_tail(cursor: duckdb.DuckDBPyConnection, view: View, held: Held) -> None:
    if not held.tail and view.tail_rows:
        cursor.register("tail", view.tail)
