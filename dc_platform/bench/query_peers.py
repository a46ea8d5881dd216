"""Those who are asked: serving over HTTP, DuckDB on the same files, ClickHouse on the same events. Each
is a child process that asks, or is asked, in its own time (`query_load.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import dc_platform
from dc_platform.bench.measure import BenchFailedError
from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.sql import sql_text, table_sql
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot

_CODE = Path(dc_platform.__file__).parent
_CLICKHOUSE = _CODE / "bench" / "query_clickhouse.py"
# Where `make lock-peers` has put what the peers are made of.
PEERS_PYTHON = _CODE.parent / "benchmarks" / ".venv" / "bin" / "python"

_TABLE = """
    create table if not exists events (
        tenant_id LowCardinality(String), source_id LowCardinality(String), event_id String,
        event_type LowCardinality(String), event_time DateTime64(6, 'UTC'),
        received_at DateTime64(6, 'UTC'), processed_at DateTime64(6, 'UTC'), payload String,
        schema_version LowCardinality(String), user String, fresh UInt8,
        index users user type bloom_filter granularity 1
    ) engine = MergeTree
    partition by (toYYYYMMDD(event_time), fresh) order by (source_id, event_time)
"""
_COLUMNS = (
    "tenant_id, source_id, event_id, event_type, event_time, received_at, processed_at, payload,"
    " schema_version"
)


class Done(NamedTuple):
    """What a peer answered: milliseconds of each question, seconds of all, and the first answer."""

    latencies_ms: list[float]
    seconds: float
    answer: list[list[Any]]


class Peer:
    """A child process that answers tasks."""

    def __init__(self, child: subprocess.Popen[str], log: Path) -> None:
        self._child = child
        self._log = log

    def ask(
        self, questions: Sequence[Any], *, clients: int = 1, most: int = 1, seconds: float = 600.0
    ) -> Done:
        """Ask `most` questions at most, for so long at most, besides those under way then."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        task = {"questions": questions, "clients": clients, "most": most, "seconds": seconds}
        self._child.stdin.write(json.dumps(task) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise BenchFailedError(f"a peer ended: {self._log.read_text()[-2000:]}")
        said = json.loads(line)
        if said.pop("error"):
            raise BenchFailedError(f"a peer cannot answer: {line[-2000:]}")
        return Done(**said)


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[Peer]:
    """A peer, ended at the end."""
    # The peers' own Python has nothing of the platform but what lies beside it.
    environment = {**os.environ, "PYTHONPATH": str(_CODE.parent)}
    with log.open("wb") as errors:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            text=True,
        )
    try:
        yield Peer(child, log)
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def api_command(url: str, token: str) -> list[str]:
    """The clients of serving."""
    return [sys.executable, "-m", "dc_platform.bench.query_api", url, token]


def duckdb_command(memory_mb: int) -> list[str]:
    """DuckDB with as much memory as serving has for queries."""
    return [sys.executable, "-m", "dc_platform.bench.query_duckdb", str(memory_mb)]


def clickhouse_command(python: Path, directory: Path) -> list[str]:
    """ClickHouse on its tables in `directory`."""
    return [str(python), str(_CLICKHOUSE), str(directory)]


def show_files(peer: Peer, lake: Lake, tail: Path) -> None:
    """Make `events` and `hourly` of DuckDB: views of the snapshots' files, and the tail's file."""
    silver = table_sql(SILVER_EVENTS, LakeTable(lake, SILVER_EVENTS).snapshot())
    hourly = table_sql(EVENTS_HOURLY, LakeTable(lake, EVENTS_HOURLY).snapshot())
    beside = f"select * from read_parquet({sql_text(str(tail))})"
    for statement in (
        f"create view events as {silver} union all by name {beside}",
        f"create view hourly as {hourly}",
    ):
        peer.ask([statement])


def fill_clickhouse(peer: Peer, lake: Lake) -> float:
    """Put the lake's events into MergeTree, and its hours beside them; gives seconds."""
    begun = time.monotonic()
    snapshot = LakeTable(lake, SILVER_EVENTS).snapshot()
    peer.ask(["drop table if exists events"])
    peer.ask([_TABLE])
    for paths in _by_day(snapshot):
        peer.ask([_insert(paths, fresh=0)])
    peer.ask(["optimize table events final"])
    peer.ask(["drop table if exists hourly"])
    peer.ask(
        [
            "create table hourly engine = MergeTree order by (h, source_id, event_type) as"
            " select toUInt32(intDiv(toUnixTimestamp64Milli(event_time), 3600000)) as h, source_id,"
            " event_type, toInt64(count()) as event_count from events"
            " group by h, source_id, event_type"
        ]
    )
    return time.monotonic() - begun


def add_fresh(peer: Peer, paths: Sequence[str]) -> None:
    """Add a run's own events, in place of a former run's."""
    old = peer.ask(
        ["select distinct partition from system.parts where active and table = 'events'"]
    )
    for (partition,) in old.answer:
        if str(partition).endswith(",1)"):
            peer.ask([f"alter table events drop partition {partition}"])
    peer.ask([_insert(paths, fresh=1)])
    peer.ask(["optimize table events"])


def _by_day(snapshot: Snapshot) -> Iterator[list[str]]:
    days: dict[Any, list[str]] = {}
    for day, path in zip(
        snapshot.actions["partition.ingest_date"].to_pylist(), snapshot.paths, strict=True
    ):
        days.setdefault(day, []).append(path)
    yield from (days[day] for day in sorted(days))


def _insert(paths: Sequence[str], *, fresh: int) -> str:
    files = " union all ".join(
        f"select {_COLUMNS} from file({sql_text(path)}, Parquet)" for path in paths
    )
    return (
        f"insert into events select {_COLUMNS}, JSONExtractString(payload, 'userId') as user,"
        f" {fresh} as fresh from ({files})"
    )
