"""Silver's events in DuckDB, as a run of gold has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest

from dc_platform_tests.helpers.lake import silver_row, silver_table

HOUR = datetime(2025, 11, 24, 16, tzinfo=UTC)
Show = Callable[[Sequence[dict[str, Any]]], None]


def event(number: int, payload: Any, **columns: Any) -> dict[str, Any]:
    """A row of silver in the hour HOUR."""
    at = HOUR.timestamp() * 1_000_000 + number % 3_600_000_000
    columns.setdefault("event_time", int(at))
    return silver_row(number, payload=json.dumps(payload), **columns)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB on two threads, in a time zone that is not UTC."""
    with duckdb.connect(config={"threads": 2}) as made:
        made.execute("set TimeZone = 'Asia/Kolkata'")
        made.execute("create schema silver")
        yield made


@pytest.fixture
def show(connection: duckdb.DuckDBPyConnection) -> Show:
    """Makes rows what the view `silver.events` shows."""

    def make(rows: Sequence[dict[str, Any]]) -> None:
        connection.register("shown", silver_table(rows))
        connection.execute("create or replace view silver.events as select * from shown")

    return make
