"""`python -m dc_platform.bench.query_duckdb MEMORY_MB`: asks DuckDB itself. A question is SQL."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import duckdb

from dc_platform.bench.query_load import Ask, serve


def main() -> None:
    """One instance with two threads, a cursor per client."""
    instance = duckdb.connect(config={"threads": 2, "memory_limit": f"{sys.argv[1]}MB"})
    instance.execute("set global TimeZone = 'UTC'")
    instance.execute("set global parquet_metadata_cache = true")

    def connect() -> Ask:
        cursor = instance.cursor()

        def ask(sql: Any) -> list[list[Any]]:
            rows = cursor.execute(sql).fetchall()
            return [[_plain(value) for value in row] for row in rows]

        return ask

    serve(connect)


def _plain(value: Any) -> Any:
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else value


if __name__ == "__main__":
    main()
