"""What a check finds, and the tables that it looks at, on one core and in 256 MB of DuckDB's memory.

What is large is grouped by 64-bit hashes, which only say where to look: equal texts have equal hashes,
and suspects are then looked at by their texts. So neither a finding nor its absence hangs on a hash.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any, NamedTuple

import duckdb

from dc_platform.contracts.ops_tables import LANDING_BORDER, TOMBSTONES
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake.scratch import LITTLE, in_little, scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, table_sql

# How many are named.
EXAMPLES = 20
_VIEWS = {
    "border": LANDING_BORDER,
    "silver": SILVER_EVENTS,
    "bronze": BRONZE_EVENTS,
    "tombstones": TOMBSTONES,
}
# Landing, gateway and serving need the other cores.
_THREADS = 1


class Finding(NamedTuple):
    """How many there are, and the first of them. `examples` may say more than what is wrong."""

    number: int
    examples: list[dict[str, Any]]


@contextmanager
def tables(lake: Lake, memory: str = LITTLE) -> Iterator[duckdb.DuckDBPyConnection]:
    """Views of the tables. The border first: silver, read after it, has all that lies below it, and
    bronze, read after it, all that silver has; what deletions took from these is in tombstones. Raises
    StoreUnavailableError where one cannot be opened.
    """
    with scratch(memory=memory, threads=_THREADS) as connection:
        # Else results are kept in the order of the files, at a price in memory.
        connection.execute("set preserve_insertion_order = false")
        lake.ensure(TOMBSTONES)
        for name, spec in _VIEWS.items():
            snapshot = LakeTable(lake, spec).snapshot()
            connection.execute(f"create temp view {name} as {table_sql(spec, snapshot)}")
        yield connection


def suspicious(lake: Lake, suspects: str, exact: str, since: date) -> Finding:
    """What `exact` finds among `suspects`, a query that names all that may be found, and more; most
    often it names nothing. `exact` reads them from the table `suspects`.
    """

    def look(memory: str) -> Finding:
        with tables(lake, memory) as connection:
            connection.execute(f"create temp table suspects as {suspects}", {"since": since})
            if not has_rows(connection, "suspects"):
                return Finding(0, [])
            return found(connection, exact, {"since": since})

    return in_little(look)


def has_rows(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether a table or view has any."""
    return connection.execute(f"select 1 from {name} limit 1").fetchone() is not None


def found(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any] | None = None
) -> Finding:
    """The rows of a query as findings."""
    rows = connection.execute(
        f"select *, count(*) over () as findings from ({sql}) limit {EXAMPLES}", parameters
    ).to_arrow_table()
    all_rows = rows.to_pylist()
    count = all_rows[0]["findings"] if all_rows else 0
    return Finding(count, [{k: v for k, v in row.items() if k != "findings"} for row in all_rows])
