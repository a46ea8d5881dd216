"""The arithmetic of the ledger: every event that was received, and what became of it.

Received is what Kafka acknowledged to a gateway (`ops.acks`). A block without such a line (its
gateway's machine was lost) counts by its own header, a stranger's record by its rows in bronze.
Landed are the rows of silver; a row of bronze that silver lacks is a duplicate when silver has its
identity, deleted when a tombstone has it, and missing when nobody has it. A deleted event's row in
bronze is a stub, which counts as deleted, whether or not the deletion has come to silver. What silver
has twice is missing less than nothing, and named
like what is lost. What lies beyond silver's border is in flight. Nothing that landing counted is asked
for.

Events stand under the hour of their receipt, so a retry counts in the hour of the retry.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import duckdb
import pyarrow as pa

from dc_platform.contracts import identity
from dc_platform.contracts.ops_tables import ACKS, GAPS, LANDING_BORDER, TOMBSTONES
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.lake import balance_sql as sql
from dc_platform.lake.scratch import in_little, scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot, table_sql

HOUR_US = 3_600_000_000

# Landing goes on beside it.
_THREADS = 1

# The border first: silver, read after it, has all that lies below it, and bronze all that silver has.
# Tombstones last: they have what a deletion took from those.
_TABLES = (LANDING_BORDER, GAPS, SILVER_EVENTS, SILVER_QUARANTINE, BRONZE_EVENTS, ACKS, TOMBSTONES)


@dataclass(frozen=True)
class Pinned:
    """The tables at the versions that a balance is made of."""

    snapshots: dict[str, Snapshot]

    def of(self, spec: TableSpec) -> Snapshot:
        """The snapshot of a table."""
        return self.snapshots[spec.name]

    @property
    def versions(self) -> dict[str, int]:
        """Table → version."""
        return {name: snapshot.version for name, snapshot in self.snapshots.items()}


def pin(lake: Lake) -> Pinned:
    """The newest versions, in an order in which no table lacks what another one has."""
    for spec in _TABLES:
        lake.ensure(spec)
    return Pinned({spec.name: LakeTable(lake, spec).snapshot() for spec in _TABLES})


def balance(pinned: Pinned, hours: Sequence[int] | None = None) -> pa.Table:
    """The ledger's rows for epoch hours, or for all; `hour` is a time. On one core, within 500 MB;
    1.3 GB when very much is missing.
    """
    return in_little(lambda memory: _balance(pinned, hours, memory))


def _balance(pinned: Pinned, hours: Sequence[int] | None, memory: str) -> pa.Table:
    with _opened(pinned, hours, memory) as connection:
        connection.execute(sql.STUBS)
        if _has_rows(connection, "stubs"):
            connection.execute(sql.SILVER_WITHOUT_STUBS)
        for statement in (
            sql.BORDERS,
            sql.RECORDS,
            sql.ACKED,
            sql.ABSENT,
            sql.LOST,
            sql.SHORT,
            sql.SURPLUS,
            sql.LOST_REJECTS,
        ):
            connection.execute(statement)
        # Nearly all duplicates are found in silver's same hours, nearly all rejects in quarantine's.
        # All of them is read for the rest, and all of bronze only when something was lost; with only
        # these few in memory.
        connection.execute(sql.GONE)
        for few, statement in (
            ("lost", sql.ELSEWHERE),
            ("lost", sql.DELETED),
            ("lost", sql.NOT_FIRST),
            ("short", sql.REALLY_SHORT),
            ("lost_rejects", sql.REJECTED_ELSEWHERE),
        ):
            if _has_rows(connection, few):
                _open_whole(connection, pinned)
                connection.execute(statement)
        if _has_rows(connection, "surplus"):
            connection.execute(sql.SURPLUS_ROWS)
        if _has_rows(connection, "lost_rejects") and _has_rows(connection, "tombstones"):
            _find_deleted_rejects(connection)
        return connection.execute(sql.LEDGER).to_arrow_table()


def _find_deleted_rejects(connection: duckdb.DuckDBPyConnection) -> None:
    """Of the rejected events that quarantine lacks, those that were deleted: their tombstones have a
    name that SQL cannot make.
    """
    rejects = connection.execute(sql.DIFFERENT_REJECTS).fetchall()
    names = [identity.quarantine_id(*reject) for reject in rejects]
    columns = [list(column) for column in zip(*rejects, strict=True)]
    connection.register(
        "named_rejects",
        pa.table([*columns, names], names=["whose", "request_hash", "request_index", "name"]),
    )
    for statement in sql.DELETED_REJECTS:
        connection.execute(statement)


def _has_rows(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    return connection.execute(f"select 1 from {name} limit 1").fetchone() is not None


@contextmanager
def _opened(
    pinned: Pinned, hours: Sequence[int] | None, memory: str
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Views of the tables, as far as the hours reach."""
    ranges = None if hours is None else _ranges(hours)
    with scratch(memory=memory, threads=_THREADS) as connection:
        # Only the ledger itself has an order.
        connection.execute("set preserve_insertion_order = false")
        for name, spec in (
            ("border", LANDING_BORDER),
            ("gaps", GAPS),
            ("tombstones", TOMBSTONES),
        ):
            _view(connection, name, spec, pinned.of(spec))
        for name, spec, column in (
            ("silver", SILVER_EVENTS, "received_at"),
            ("quarantine", SILVER_QUARANTINE, "received_at"),
            ("bronze", BRONZE_EVENTS, "received_at"),
            ("acks", ACKS, "hour"),
        ):
            snapshot = pinned.of(spec)
            near = snapshot if ranges is None else snapshot.overlapping(column, ranges)
            _view(connection, name, spec, near, column, ranges)
        yield connection


def _open_whole(connection: duckdb.DuckDBPyConnection, pinned: Pinned) -> None:
    """Views of all hours."""
    for name, spec in (
        ("silver", SILVER_EVENTS),
        ("quarantine", SILVER_QUARANTINE),
        ("bronze", BRONZE_EVENTS),
        ("acks", ACKS),
    ):
        _view(connection, f"all_{name}", spec, pinned.of(spec))


def _view(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    spec: TableSpec,
    snapshot: Snapshot,
    column: str | None = None,
    ranges: Sequence[tuple[int, int]] | None = None,
) -> None:
    select = "*"
    where = "true"
    if column is not None:
        select = f"* {'exclude (hour)' if column == 'hour' else ''}"
        select += f", {hour_sql(column)} as hour"
    if column is not None and ranges is not None:
        where = " or ".join(
            f"{column} between make_timestamptz({first}) and make_timestamptz({last})"
            for first, last in ranges
        )
    connection.execute(
        f"create or replace temp view {name} as select {select} from ({table_sql(spec, snapshot)})"
        f" where {where or 'false'}"
    )


def hour_sql(column: str) -> str:
    """The epoch hour of a time in SQL, also of one before 1970."""
    micros = f"epoch_us({column})"
    return f"({micros} - if({micros} < 0, {HOUR_US - 1}, 0)) // {HOUR_US}"


def _ranges(hours: Sequence[int]) -> list[tuple[int, int]]:
    """Hours that follow each other as one range of microseconds, both ends in it."""
    ordered = sorted(set(hours))
    if not ordered:
        return []
    breaks = [i + 1 for i, (a, b) in enumerate(pairwise(ordered)) if b != a + 1]
    return [
        (ordered[start] * HOUR_US, (ordered[end - 1] + 1) * HOUR_US - 1)
        for start, end in pairwise([0, *breaks, len(ordered)])
    ]
