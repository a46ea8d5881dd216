"""What monitoring counts of a set of rows, small enough to be kept for every file of a day.

A file never changes, so it is counted once, whoever asks and how often: a look at the last day costs
the sum of the counts, and the files that are new. Times are buckets of five seconds since the epoch. Of
sources and event types the 100 with most events of a tenant in a file have a count of their
own; what is left is counted under null.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.table import sql_list
from dc_platform.serving.instance import spill_name

BUCKET_MS = 5_000
_BUCKET_US = BUCKET_MS * 1000
_KEYS = 100
# Bins of a latency: eight for each doubling, from a millisecond on; 2^28 ms are three days.
BINS_PER_DOUBLING = 8
BINS = 28 * BINS_PER_DOUBLING

_BUCKET = f"(epoch_us({{}}) // {_BUCKET_US})::integer"
_RECEIVED = _BUCKET.format("received_at")
_BIN = (
    "least(floor(log2(greatest(epoch_ms(processed_at) - epoch_ms(received_at), 1))"
    f" * {BINS_PER_DOUBLING}), {BINS - 1})::smallint"
)

# Events by the moments of their receipt and of their landing, which is null in the tail.
_FLOW = (
    f"select part, tenant_id, {_RECEIVED} as received, {_BUCKET.format('processed_at')} as processed,"
    f" {_BIN} as bin, count(*)::bigint as events, max(epoch_ms(received_at)) as newest,"
    " max(epoch_ms(processed_at)) as landed from rows group by all"
)
_PARTITIONS = (
    "select part, tenant_id, kafka_partition, count(*)::bigint as events from rows group by all"
)
_REASONS = (
    f"select part, tenant_id, reason as key, {_RECEIVED} as received, count(*)::bigint as events"
    " from rows group by all"
)


def _keys(column: str) -> str:
    return f"""
with counted as (
    select part, tenant_id, {column} as key, {_RECEIVED} as received, count(*)::bigint as events
    from rows group by all
),
placed as (
    select part, tenant_id, key,
        row_number() over (partition by part, tenant_id order by sum(events) desc, key) as place
    from counted group by part, tenant_id, key
)
select part, tenant_id, case when place <= {_KEYS} then key end as key, received,
    sum(events)::bigint as events
from counted join placed using (part, tenant_id, key) group by all
"""


# Name → SQL over the relation `rows`, in which `part` numbers the files.
EVENTS = {"flow": _FLOW, "sources": _keys("source_id"), "types": _keys("event_type")}
TAIL = {**EVENTS, "partitions": _PARTITIONS}
REJECTED = {"reasons": _REASONS}

# The columns that these read.
EVENT_COLUMNS = (
    "tenant_id",
    "source_id",
    "event_type",
    "received_at",
    "processed_at",
    "kafka_partition",
)
REJECTED_COLUMNS = ("tenant_id", "reason", "received_at")

Rollup = Mapping[str, pa.Table]

# Small files are counted together; a large one alone takes some tenths of a second.
_TOGETHER, _TOGETHER_BYTES = 32, 32 * 2**20


def together(files: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Paths in batches, of files with their sizes."""
    batch: list[str] = []
    total = 0
    for path, size in files:
        if batch and (len(batch) == _TOGETHER or total + size > _TOGETHER_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(path)
        total += size
    if batch:
        yield batch


class Counter:
    """Counts rows in a DuckDB of its own: one thread, 256 MB, spilling below `temporary`. Thread-safe,
    and one count after the other.
    """

    def __init__(self, temporary: Path) -> None:
        self._lock = threading.Lock()
        self._connection = duckdb.connect(
            config={
                "threads": 1,
                "memory_limit": "256MB",
                "temp_directory": str(temporary / spill_name("count")),
                "python_enable_replacements": "false",
            }
        )
        self._connection.execute("set global TimeZone = 'UTC'")

    def files(
        self, statements: Mapping[str, str], paths: Sequence[str], columns: Sequence[str]
    ) -> dict[str, Rollup]:
        """Path → rollup of a Parquet file. Many small files together take a tenth of the time."""
        rows = (
            f"select file_index::integer as part, {', '.join(columns)}"
            f" from read_parquet({sql_list(paths)}, hive_partitioning = false)"
        )
        counted = self._count(statements, rows, None)
        numbers = range(len(paths))
        apart = {name: _apart(table, numbers) for name, table in counted.items()}
        return {paths[n]: {name: apart[name][n] for name in statements} for n in numbers}

    def rows(
        self, statements: Mapping[str, str], sql: str, table: pa.Table | None = None
    ) -> Rollup:
        """The rollup of the rows of a SELECT, which may name `table` as `given`."""
        counted = self._count(statements, f"select 0 as part, * from ({sql})", table)
        return {name: _small(table) for name, table in counted.items()}

    def _count(
        self, statements: Mapping[str, str], rows: str, table: pa.Table | None
    ) -> dict[str, pa.Table]:
        with self._lock, self._connection.cursor() as cursor:
            if table is not None:
                cursor.register("given", table)
            try:
                cursor.execute(f"create temp view rows as {rows}")
                return {n: cursor.execute(sql).to_arrow_table() for n, sql in statements.items()}
            except duckdb.Error as error:
                raise StoreUnavailableError(f"counting events failed: {error}") from error


def _apart(table: pa.Table, numbers: Iterable[int]) -> list[pa.Table]:
    parts = table["part"].combine_chunks()
    return [_small(table.filter(pc.equal(parts, number))) for number in numbers]


def _small(table: pa.Table) -> pa.Table:
    table = table.drop_columns(["part"])
    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            column = table.column(number).combine_chunks().dictionary_encode()
            table = table.set_column(number, field.name, column)
    return table
