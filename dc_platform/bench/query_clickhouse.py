"""ClickHouse as a library (PyPI chdb), in the Python of the benchmarks' peers.

    PYTHON query_clickhouse.py DIRECTORY

A question is SQL. chdb has one engine per process, and a session runs one statement at a time; clients
share it through connections of their own.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import chdb  # type: ignore[import-not-found]

from dc_platform.bench.query_load import Ask, serve


def main() -> None:
    """Ask the tables in the directory."""
    path = f"{sys.argv[1]}?max_threads=2"

    def connect() -> Ask:
        connection = chdb.connect(path)

        def ask(sql: Any) -> list[list[Any]]:
            text = connection.query(sql, "JSONCompact").bytes()
            return json.loads(text)["data"] if text.strip() else []

        return ask

    serve(connect)


if __name__ == "__main__":
    main()
