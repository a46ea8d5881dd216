"""Spark and dlt as contenders. Each runs in the Python of benchmarks/.venv, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dc_platform.bench.contenders import Drained, Task, check_events
from dc_platform.bench.measure import BenchFailedError, Cost, run_child
from dc_platform.stack import artifacts

_HERE = Path(__file__).parent
PYTHON = _HERE.parent / ".venv" / "bin" / "python"
SPARK_JARS = _HERE / "spark_jars.txt"
# In one JVM: the first is the cold one.
_SPARK_DRAINS = 3


def check_installed() -> None:
    """Raise BenchFailedError when benchmarks/.venv is missing."""
    if not PYTHON.exists():
        raise BenchFailedError("the peers are not installed: run make bench-landing")


def spark_jars() -> list[Path]:
    """What Spark needs beside its own jars, downloaded when missing."""
    pins = artifacts.parse_pins(SPARK_JARS.read_text())
    return artifacts.fetch("Spark's connectors", pins)


@dataclass(frozen=True)
class Spark:
    """Structured Streaming, `Trigger.AvailableNow`, local[2], into one Delta table."""

    jars: str
    name: str = "spark"
    formats: frozenset[str] = frozenset({"ndjson", "json"})

    def drain(self, task: Task) -> Mapping[str, Sequence[Drained]]:
        """One JVM, `_SPARK_DRAINS` drains into as many tables."""
        cost = _run("spark_drain.py", task, "--jars", self.jars, "--drains", str(_SPARK_DRAINS))
        for number in range(_SPARK_DRAINS):
            check_events(task.directory / f"table-{number}", "eventId", task.events)
        return spark_drains(cost, task.events)


def spark_drains(cost: Cost, events: int) -> Mapping[str, Sequence[Drained]]:
    """What `spark_drain.py` printed: the first drain is cold and has the start of its process."""
    drains: list[dict[str, Any]] = cost.result["drains"]
    done = [
        Drained(
            events,
            drain["seconds"],
            None if number else drain["ended_at"] - cost.started_at,
            drain["cpu_seconds"],
            drain["peak_rss_mb"],
        )
        for number, drain in enumerate(drains)
    ]
    return {"cold": done[:1], "warm": done[1:]}


@dataclass(frozen=True)
class Dlt:
    """A dlt pipeline of Arrow tables into one Delta table."""

    name: str = "dlt"
    formats: frozenset[str] = frozenset({"ndjson", "arrow", "json"})

    def drain(self, task: Task) -> Mapping[str, Sequence[Drained]]:
        """One pipeline run."""
        cost = _run("dlt_drain.py", task)
        check_events(task.directory / "table" / "bench" / "events", "event_id", task.events)
        drained = Drained(
            task.events,
            cost.result["seconds"],
            cost.wall_seconds,
            cost.cpu_seconds,
            cost.peak_rss_mb,
        )
        return {"": [drained]}


def _run(script: str, task: Task, *more: str) -> Cost:
    return run_child(
        [
            str(PYTHON),
            str(_HERE / script),
            *("--bootstrap", task.bootstrap, "--topic", task.topic, "--format", task.format),
            *("--directory", str(task.directory)),
            *more,
        ],
        environment={
            "RUNTIME__DLTHUB_TELEMETRY": "false",
            "DLT_DATA_DIR": str(task.directory / "dlt"),
        },
        log=task.directory / f"{script}.log",
    )
