"""`ops.replays` beside silver.quarantine: which rows are open, and what became of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb
import pyarrow as pa

from dc_platform.contracts.ops_tables import REPLAYS
from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.parquet import write_file
from dc_platform.lake.scratch import MUCH, scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, table_sql

REPLAYED = "replayed"
KNOWN = "known"
REJECTED = "rejected"

# A piece is held in memory with what is made of it: 16 MiB of bytes, or 5,000 rows.
_PIECE_BYTES = 16 * 2**20
_PIECE_ROWS = 5_000
# As much of a body is kept at most (contracts/rejects.py).
_MOST_KEPT = 10 * 2**20

# By event: done when a replay sent it, or found it in silver.
_DONE = f"""
    select quarantine_id, bool_and(done) as all_done,
           coalesce(list(event_index) filter (done), []) as done
    from (
        select quarantine_id, event_index, bool_or(result <> '{REJECTED}') as done
        from replays group by all
    ) group by all
"""
_OPEN = f"""
    create temp table open as
    with numbered as (
        select q.quarantine_id, q.received_at, coalesce(d.done, []) as done,
               sum(least(q.raw_length, {_MOST_KEPT}) + {_PIECE_BYTES // _PIECE_ROWS}) over (
                   order by q.received_at, q.quarantine_id) as reached
        from (select * exclude (raw) from quarantine where $where) q
        left join ({_DONE}) d using (quarantine_id)
        where not coalesce(d.all_done, false)
    )
    select * exclude (reached), ((reached - 1) // {_PIECE_BYTES})::bigint as piece from numbered
"""
_PIECE = """
    select q.* , o.done
    from (select * from quarantine where received_at between $first and $last) q
    join (select quarantine_id, done from open where piece = $piece) o using (quarantine_id)
    order by q.received_at, q.quarantine_id
"""


@dataclass(frozen=True)
class Selection:
    """Rows of quarantine; None does not choose."""

    reason: str | None = None
    source_id: str | None = None
    schema_version: str | None = None
    quarantine_id: str | None = None

    def where(self) -> tuple[str, dict[str, str]]:
        """(condition, its parameters)."""
        chosen = {name: value for name, value in vars(self).items() if value is not None}
        return " and ".join([f"{name} = ${name}" for name in chosen] or ["true"]), chosen


def days_of(lake: Lake) -> list[date]:
    """The ingest dates of which quarantine has rows."""
    if not lake.exists(SILVER_QUARANTINE):
        return []
    days = LakeTable(lake, SILVER_QUARANTINE).snapshot().rows_by_partition()
    return sorted(date.fromisoformat(day) for day in days)


class OpenRows:
    """The rows of a day of quarantine that need a replay, in pieces, in the order of receipt."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, lake: Lake, day: date, selection: Selection
    ) -> None:
        self._connection = connection
        for name, spec, column in (
            ("quarantine", SILVER_QUARANTINE, "ingest_date"),
            ("replays", REPLAYS, "quarantine_date"),
        ):
            rows = table_sql(spec, LakeTable(lake, spec).snapshot())
            connection.execute(
                f"create temp view {name} as select * from ({rows})"
                f" where {column} = date '{day.isoformat()}'"
            )
        where, parameters = selection.where()
        connection.execute(_OPEN.replace("$where", where), parameters)

    def pieces(self) -> Iterator[pa.Table]:
        """Rows of quarantine with `done`, a list of positions of events that need no replay."""
        pieces = self._connection.execute(
            "select piece, min(received_at), max(received_at) from open group by piece order by 1"
        ).fetchall()
        for piece, first, last in pieces:
            yield self._connection.execute(
                _PIECE, {"piece": piece, "first": first, "last": last}
            ).to_arrow_table()


@contextmanager
def open_rows(lake: Lake, day: date, selection: Selection) -> Iterator[OpenRows]:
    """The rows to replay, at the tables' newest versions."""
    lake.ensure(SILVER_QUARANTINE)
    lake.ensure(REPLAYS)
    with scratch(memory=MUCH, threads=1) as connection:
        yield OpenRows(connection, lake, day, selection)


def in_silver(lake: Lake, identities: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these (source, event id) silver has, whatever the timestamp."""
    if not identities or not lake.exists(SILVER_EVENTS):
        return set()
    columns = [list(column) for column in zip(*identities, strict=True)]
    silver = table_sql(SILVER_EVENTS, LakeTable(lake, SILVER_EVENTS).snapshot())
    with scratch(memory=MUCH, threads=1) as connection:
        connection.register("asked", pa.table(columns, names=["source_id", "event_id"]))
        found = connection.execute(
            f"select distinct source_id, event_id from ({silver})"
            " semi join asked using (source_id, event_id)"
        ).fetchall()
    return set(found)


def record_replays(lake: Lake, rows: Sequence[dict[str, Any]], day: date) -> None:
    """Add rows of `ops.replays`. Of two replays of one day at once both may record an event; it is
    done all the same.
    """
    table = pa.Table.from_pylist(list(rows), schema=REPLAYS.file_schema)
    file = write_file(lake, REPLAYS, table, partition=day)
    LakeTable(lake, REPLAYS).commit([file], txns={}, exact=False)
