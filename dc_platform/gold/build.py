"""One build: the pinned rows as views of a scratch DuckDB file, dbt's models and tests over them.

Nothing outside of the scratch directory is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from dc_platform.contracts.gold import EVENTS_HOURLY, GoldSpec
from dc_platform.contracts.spec import TIMESTAMP
from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.gold.dbt import Outcome, run_dbt
from dc_platform.gold.pending import Pinned, Work, date_of
from dc_platform.lake.balance import HOUR_US
from dc_platform.lake.sql import table_sql
from dc_platform.lake.table import Snapshot

_FILE = "scratch.duckdb"
_DAY_US = 24 * HOUR_US


@dataclass(frozen=True)
class Built:
    """A scratch file with the rows of the touched hours and days, every test passed."""

    directory: Path
    outcomes: list[Outcome]

    def rows(self, spec: GoldSpec) -> pa.Table:
        """The rows of a table, in the order of its grain."""
        with _open(self.directory) as connection:
            columns = ", ".join(spec.columns.names)
            found = connection.execute(
                f"select {columns} from {spec.name} order by {', '.join(spec.grain)}"
            )
            return found.to_arrow_table().cast(spec.columns)

    def produced(
        self,
        spec: GoldSpec,
        make: Callable[[duckdb.DuckDBPyConnection, Work], pa.Table],
        work: Work,
    ) -> pa.Table:
        """The rows of a table that a function makes of the same views, in the order of its grain."""
        with _open(self.directory) as connection:
            rows = make(connection, work).cast(spec.columns)
        return rows.sort_by([(name, "ascending") for name in spec.grain])


def build(pinned: Pinned, work: Work, directory: Path, cache: Path) -> Built:
    """Build the hours and days of `work`; raises AuditError when a test does not hold. Work on metrics
    alone leaves dbt out.
    """
    with _open(directory) as connection:
        for statement in _statements(pinned, work):
            connection.execute(statement)
        _insert(connection, "hours", "hour", [hour * HOUR_US for hour in work.hours], TIMESTAMP)
        _insert(connection, "days", "day", sorted(work.days), pa.date32())
    if work.only_metrics:
        return Built(directory, [])
    return Built(directory, run_dbt(["build"], target="duckdb", directory=directory, cache=cache))


def _open(directory: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(directory / _FILE))
    connection.execute("set TimeZone = 'UTC'")
    return connection


def _statements(pinned: Pinned, work: Work) -> Iterator[str]:
    hours = [(first * HOUR_US, (last + 1) * HOUR_US - 1) for first, last in _spans(work.hours)]
    days = [(first * _DAY_US, (last + 1) * _DAY_US - 1) for first, last in _spans(work.days)]
    for schema in ("silver", "published", "run"):
        yield f"create schema {schema}"
    events, rejected = SILVER_EVENTS, SILVER_QUARANTINE
    yield _view("silver.events", events, pinned.silver.overlapping("event_time", hours))
    yield _view("silver.events_of_days", events, pinned.silver.overlapping("event_time", days))
    of_days = pinned.quarantine.overlapping("received_at", days)
    yield _view("silver.quarantine", rejected, of_days)
    yield _view("published.events_hourly", EVENTS_HOURLY, of_partitions(pinned.published, work))
    yield "create table run.hours (hour timestamptz)"
    yield "create table run.days (day date)"
    yield f"create table run.pinned as select {pinned.silver.version}::bigint as silver_version"


def of_partitions(snapshot: Snapshot, work: Work) -> Snapshot:
    """Only the files of the touched days."""
    if not snapshot.paths:
        return snapshot
    days = pa.array([date_of(day) for day in work.days], pa.date32())
    keep = pa.compute.is_in(snapshot.actions["partition.hour_date"], value_set=days)
    return Snapshot(snapshot.version, snapshot.actions.filter(keep), snapshot.root)


def _view(name: str, spec: TableSpec, snapshot: Snapshot) -> str:
    return f"create view {name} as {table_sql(spec, snapshot)}"


def _insert(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    column: str,
    values: list[int],
    type_: pa.DataType,
) -> None:
    # dates and times are numbers since 1970.
    width = pa.int32() if pa.types.is_date32(type_) else pa.int64()
    rows = pa.table({column: pa.array(values, width).cast(type_)})
    connection.register("given", rows)
    connection.execute(f"insert into run.{table} select {column} from given")
    connection.unregister("given")


def _spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers that follow each other as (first, last)."""
    spans: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans
