"""Sampling of judged events: whose block names a rate below which an event is left out.

Left out is a verdict, `sampled`: bronze keeps the row, silver does not get it, the ledger counts it.
The decision is `contracts.sampling`'s, made in columns; blocks without the header cost a look for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from dc_platform.broker.records import Records
from dc_platform.contracts import blocks
from dc_platform.contracts.sampling import OTHERS, SCALE, read_rates

# Rates by record, and what the rows are decided by.
_RATES = pa.schema(
    [
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
        ("source_id", pa.string()),
        ("kind", pa.string()),
        ("rate", pa.float64()),
    ]
)
_NAMES = ["kafka_partition", "kafka_offset", "source_id", "event_type", "event_id", "verdict"]
_DECIDE = f"""
    with rated as (
        select e.*, if(verdict = '{blocks.VALID}', coalesce(own.rate, others.rate, 1.0), 1.0) as rate
        from (select *, row_number() over () as place from events) e
        left join rates own on own.kafka_partition = e.kafka_partition
            and own.kafka_offset = e.kafka_offset and own.source_id = e.source_id
            and own.kind = e.event_type
        left join rates others on others.kafka_partition = e.kafka_partition
            and others.kafka_offset = e.kafka_offset and others.source_id = e.source_id
            and others.kind = '{OTHERS}'
    )
    select rate, if(verdict <> '{blocks.VALID}'
                    or ('0x' || md5(event_id)[1:8])::ubigint < rate * {SCALE},
                    verdict, '{blocks.SAMPLED}') as verdict
    from rated order by place
"""


def rates_of(records: Records) -> pa.Table | None:
    """The rates that the records' headers name; None when none does: the usual case."""
    if not any(blocks.SAMPLING in headers for headers in records.headers):
        return None
    rows: list[tuple[int, int, str, str, float]] = []
    for record in records:
        rates = read_rates(record.headers.get(blocks.SAMPLING, b"{}"))
        rows += (
            (record.partition, record.offset, source_id, kind, rate)
            for source_id, kinds in rates.items()
            for kind, rate in kinds.items()
        )
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _RATES]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, _RATES, strict=True)]
    return pa.table(arrays, schema=_RATES)


def sampled(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[pa.Table], rates: pa.Table
) -> list[pa.Table]:
    """Judged tables with the verdict `sampled` where an event is left out, and the rate of each."""
    return [_sampled(connection, table, rates) for table in tables]


def _sampled(connection: duckdb.DuckDBPyConnection, table: pa.Table, rates: pa.Table) -> pa.Table:
    connection.register("events", table.select(_NAMES))
    connection.register("rates", rates)
    try:
        decided = connection.execute(_DECIDE).to_arrow_table()
    finally:
        connection.unregister("events")
        connection.unregister("rates")
    for name, column in (("sample_rate", decided["rate"]), ("verdict", decided["verdict"])):
        table = table.set_column(table.column_names.index(name), name, column)
    return table
