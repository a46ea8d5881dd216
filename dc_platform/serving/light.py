"""Answers to light queries: those that read no payload and find their rows in memory, but for what has
just landed, and those that need only few rows of gold. They have DuckDB with one thread, in a process
of their own (`reader.py`).

DuckDB divides the work of each query among all threads of its instance, whatever there is to do: of a
query that takes 2.0 ms with one thread two make 3.5 ms of CPU time, and no answer sooner.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.contracts.spec import GoldSpec
from dc_platform.lake.store import Lake
from dc_platform.lake.table import Snapshot
from dc_platform.serving.cache import ResultCache
from dc_platform.serving.conditions import Equality
from dc_platform.serving.covered import Coverage
from dc_platform.serving.cursors import SHARE, Cursors
from dc_platform.serving.instance import Bounds
from dc_platform.serving.needles import Found
from dc_platform.serving.recent import Held
from dc_platform.serving.rows import Deadlines, rows_in_time
from dc_platform.serving.view import Few, View
from dc_platform.settings import Settings

# Of DCP_QUERY_MEMORY_MB, DCP_RECENT_MEMORY_MB, DCP_QUERY_CACHE_MB and of the share of a core in which
# rows are copied, the part of each process that answers light queries.
PART = 4
_LEAST_MB = 64
# Rows of gold for which one thread is enough: to plan a query of a day takes longer than to read it.
_FEW_ROWS = 200_000
# What has just landed and is not in memory yet.
_NEW = Few(files=4, rows=20_000)
# What is worth all threads: JSON is parsed for each row.
_HEAVY = re.compile(r"\bpayload\b")


class HeavyQueryError(Exception):
    """The query is not light: somebody else has to answer it."""


class Light:
    """Runs light queries, and raises HeavyQueryError for all others."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._deadlines = Deadlines(settings.query_timeout_seconds)
        self.answers = ResultCache(settings.query_cache_mb * 2**20 // PART)
        self._coverage = Coverage(lake, EVENTS_HOURLY)
        bounds = Bounds(
            1,
            light_memory_mb(settings),
            settings.data_dir.absolute() / "query-tmp",
            0,
            [str(Path(lake.uri).absolute())],
        )
        recent = settings.recent_memory_mb // PART
        self.cursors = Cursors(bounds, recent_memory_mb=recent, share=SHARE / PART)

    def close(self) -> None:
        """End what goes on beside the queries."""
        self.cursors.close()

    def follow(self, view: View) -> None:
        """Copy the newest rows of a view; returns at once."""
        with self.cursors.recent.of(view):
            pass

    def deadline(self) -> float:
        """When a query that begins now must have ended, by `time.monotonic`."""
        return time.monotonic() + self._deadlines.seconds

    def coverage(self, spec: GoldSpec) -> Coverage:
        """Which hours gold.events_hourly can answer."""
        assert spec is EVENTS_HOURLY
        return self._coverage

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
        """The rows of our own SQL over `events` of a time range, as `Engine` has it."""
        if _HEAVY.search(f"{sql} {view.where(tenant_id)}"):
            raise HeavyQueryError
        with self.cursors.holding(view, from_us, to_us, but=_NEW) as found:
            if found is None:
                raise HeavyQueryError
            cursor, held = found
            whole = view.sql_over_events(sql, tenant_id, from_us, to_us, held)
            return rows_in_time(cursor, whole, parameters, self._deadlines, until)

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
        """The rows of our own SQL over parts of a view, where these are `gold_rows` of gold and no
        others.
        """
        if hourly is not None or gold_rows is None or gold_rows > _FEW_ROWS:
            raise HeavyQueryError
        with self.cursors.on() as (cursor, held):
            return rows_in_time(cursor, sql(held), parameters, self._deadlines, until)

    def found(
        self, view: View, from_us: int | None, to_us: int | None, equalities: Sequence[Equality]
    ) -> Found:
        """Indexes of payload fields are not for light queries."""
        raise HeavyQueryError


def light_memory_mb(settings: Settings) -> int:
    """DuckDB's memory in a process for light queries."""
    return max(_LEAST_MB, settings.query_memory_mb // PART)
