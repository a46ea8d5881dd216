"""What drains the same topics: the platform, the plain loop, and whatever else is handed in.

A contender gives, for each drain of a topic, what it cost; its table has been counted by then, so a
figure stands for all events, each once.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from deltalake import DeltaTable

from dc_platform.bench import base_lake
from dc_platform.bench.measure import BenchFailedError, run_python
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake.scratch import scratch


@dataclass(frozen=True)
class Task:
    """A topic to drain, and a directory of one's own to write to."""

    bootstrap: str
    topic: str
    format: str
    events: int
    duplicates: int
    directory: Path


@dataclass(frozen=True)
class Drained:
    """What one drain cost.

    `seconds` counts from when the process was ready to begin, `from_start_seconds` from its start;
    None for a later drain of a process.
    """

    events: int
    seconds: float
    from_start_seconds: float | None
    cpu_seconds: float
    peak_rss_mb: float


class Contender(Protocol):
    """A system that lands a topic in a Delta table."""

    @property
    def name(self) -> str:
        """What its figures are called."""
        ...

    @property
    def formats(self) -> frozenset[str]:
        """The formats that it can read."""
        ...

    def drain(self, task: Task) -> Mapping[str, Sequence[Drained]]:
        """Drain the topic into new tables; kind ("", "cold", "warm") → what each drain cost.

        Raises BenchFailedError when a table does not have every event once.
        """
        ...


@dataclass(frozen=True)
class Platform:
    """`dcp land` into a copy of the lake `base`, which holds `preload` events."""

    base: Path
    preload: int
    name: str = "platform"
    formats: frozenset[str] = frozenset({"ndjson", "arrow", "json"})

    def drain(self, task: Task) -> Mapping[str, Sequence[Drained]]:
        """Land in a new process; bronze and silver are counted."""
        lake = task.directory / "lake"
        base_lake.copy(self.base, lake)
        cost = run_python(
            "dc_platform.cli.main",
            ["land", "--until-caught-up", "--json"],
            environment={
                "DCP_KAFKA_BOOTSTRAP": task.bootstrap,
                "DCP_TOPIC": task.topic,
                "DCP_LAKE_URI": str(lake),
                "DCP_DATA_DIR": str(task.directory / "data"),
                "DCP_UNKNOWN_SOURCES": "accept",
            },
            log=task.directory / "land.log",
        )
        landed = task.events - task.duplicates
        found = tuple(cost.result[k] for k in ("received", "landed", "duplicates", "rejected"))
        if found != (task.events, landed, task.duplicates, 0):
            raise BenchFailedError(
                f"dcp land, {task.format}: received, landed, duplicates, rejected are {found}, not"
                f" {(task.events, landed, task.duplicates, 0)}"
            )
        check_rows(lake / SILVER_EVENTS.path, self.preload + landed)
        own = f"topic_id <> '{base_lake.TOPIC_ID}'"
        check_events(lake / BRONZE_EVENTS.path, "event_id", task.events, where=own)
        check_events(lake / SILVER_EVENTS.path, "event_id", landed, where=own)
        seconds = float(cost.result["seconds"])
        drained = Drained(
            task.events, seconds, cost.wall_seconds, cost.cpu_seconds, cost.peak_rss_mb
        )
        return {"": [drained]}


@dataclass(frozen=True)
class PlainLoop:
    """The measure: one table, nothing checked, nothing deduplicated (`plain_loop.py`)."""

    name: str = "plain_loop"
    formats: frozenset[str] = frozenset({"ndjson", "arrow", "json"})

    def drain(self, task: Task) -> Mapping[str, Sequence[Drained]]:
        """Drain in a new process."""
        table = task.directory / "table"
        cost = run_python(
            "dc_platform.bench.plain_loop",
            [
                *("--bootstrap", task.bootstrap, "--topic", task.topic),
                *("--uri", str(table), "--format", task.format),
            ],
            environment={},
            log=task.directory / "plain.log",
        )
        check_events(table, "eventId", task.events)
        seconds = float(cost.result["seconds"])
        drained = Drained(
            task.events, seconds, cost.wall_seconds, cost.cpu_seconds, cost.peak_rss_mb
        )
        return {"": [drained]}


def drain_once(contender: Contender, task: Task) -> Mapping[str, Sequence[Drained]]:
    """Let it drain in its directory, which is removed afterwards."""
    task.directory.mkdir(parents=True)
    try:
        return contender.drain(task)
    finally:
        shutil.rmtree(task.directory, ignore_errors=True)


def check_rows(table: Path, expected: int) -> None:
    """Raise BenchFailedError unless the table's log says that it has so many rows."""
    rows = sum(_files(table)["num_records"].to_pylist())
    if rows != expected:
        raise BenchFailedError(f"{table} has {rows:,} rows, not {expected:,}")


def check_events(table: Path, id_column: str, expected: int, *, where: str = "true") -> None:
    """Raise BenchFailedError unless so many rows of the table are `where`, each with another id."""
    files = [str(table / path) for path in _files(table)["path"].to_pylist()]
    with scratch() as connection:
        found = connection.execute(
            f'select count(*), count(distinct "{id_column}") from read_parquet($files)'
            f" where {where}",
            {"files": files},
        ).fetchone()
    if found != (expected, expected):
        raise BenchFailedError(f"{table}: rows and different ids are {found}, not {expected:,}")


def _files(table: Path) -> pa.Table:
    return pa.table(DeltaTable(str(table)).get_add_actions(flatten=True))
