"""Rows of bronze in address order, in pieces that fit into memory whatever the events hold.

Sorted in one go, a day of large events has to be held or spilled whole, and 200,000 rows of 50 KB are
10 GB. So two scans tell first where the pieces end (how much each record holds) and which files each
has rows in; then a piece at a time is read and put in order. To read the events twice takes 1.5 s of
600 MB, to decode them 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from dc_platform.lake.scratch import scratch
from dc_platform.lake.table import LakeTable, files_sql, sql_list

# What one piece holds at most, and a record more: 32 MiB of events, or 200,000 rows without any.
_BYTES = 32 * 2**20
_ROWS = 200_000
# A thread that scans holds a row group two and a half times, and one is of 128 MiB at most.
_MEMORY = "1GB"
_THREADS = 1

# Bytes and rows are one measure: each row counts as what its other columns take.
_PIECES = """
    with records as (
        select topic_id, kafka_partition, kafka_offset,
               sum(coalesce(octet_length(raw), 0) + {row}) as size
        from ({rows}) group by all
    ), summed as (
        select *, sum(size) over (
            partition by topic_id, kafka_partition order by kafka_offset) as reached
        from records
    )
    select topic_id, kafka_partition, min(kafka_offset), max(kafka_offset)
    from summed group by topic_id, kafka_partition, (reached - 1) // {piece} order by all
"""
_FILES = """
    select topic_id, kafka_partition, filename, min(kafka_offset), max(kafka_offset)
    from ({rows}) group by all
"""


class _Span(NamedTuple):
    """Offsets [first, last] of a partition that a piece covers, or a file has rows of."""

    first: int
    last: int


def bronze_rows(table: LakeTable, condition: str) -> Iterator[pa.Table]:
    """Rows of bronze by topic in address order, in pieces that end with whole records of one
    partition.
    """
    snapshot = table.snapshot()
    paths = snapshot.paths
    if not paths:
        return
    lacking = snapshot.lacking(table.spec)
    # Rows become Python's datetimes, which cannot hold the year 1 in a zone west of Greenwich: the
    # scratch connection is in UTC.
    with scratch(memory=_MEMORY, threads=_THREADS) as connection:
        rows = _select(paths, condition, "topic_id, kafka_partition, kafka_offset, raw")
        query = _PIECES.format(rows=rows, row=_BYTES // _ROWS, piece=_BYTES)
        pieces = connection.execute(query).fetchall()
        files = _files(connection, paths, condition)
        for topic_id, partition, first, last in pieces:
            mine = [
                path
                for path, span in files[topic_id, partition]
                if span.first <= last and first <= span.last
            ]
            only = (
                f"({condition}) and topic_id = '{topic_id}' and kafka_partition = {partition}"
                f" and kafka_offset between {first} and {last}"
            )
            names = ", ".join(table.spec.file_schema.names)
            all_of = files_sql(table.spec, mine, lacking, "hive_partitioning = true")
            yield connection.execute(
                f"select {names} from ({all_of}) where {only} order by kafka_offset, kafka_index"
            ).to_arrow_table()


def _files(
    connection: duckdb.DuckDBPyConnection, paths: list[str], condition: str
) -> dict[tuple[Any, Any], list[tuple[str, _Span]]]:
    """(topic, partition) → files that have rows of it. Only a few columns are read for it."""
    names = "topic_id, kafka_partition, kafka_offset, filename"
    rows = _select(paths, condition, names, "filename = true")
    found: dict[tuple[Any, Any], list[tuple[str, _Span]]] = {}
    for topic_id, partition, path, first, last in connection.execute(
        _FILES.format(rows=rows)
    ).fetchall():
        found.setdefault((topic_id, partition), []).append((path, _Span(first, last)))
    return found


def _select(paths: list[str], condition: str, columns: str, *options: str) -> str:
    also = "".join(f", {option}" for option in options)
    return (
        f"select {columns} from read_parquet({sql_list(paths)}, hive_partitioning = true{also})"
        f" where {condition}"
    )
