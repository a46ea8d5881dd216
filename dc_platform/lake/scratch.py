"""DuckDB for questions to whole tables: bounded memory, and a directory to spill what exceeds it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import duckdb

log = logging.getLogger(__name__)

# What goes on beside landing. 6,000,000 events are looked through as fast in the first as in the
# second; a balance of which silver lacks half needs the second.
LITTLE = "256MB"
MUCH = "1GB"
Made = TypeVar("Made")


def in_little(work: Callable[[str], Made]) -> Made:
    """What `work` gives with little memory, or else with much.

    Raises duckdb.OutOfMemoryException where that does not do either.
    """
    try:
        return work(LITTLE)
    except duckdb.OutOfMemoryException:
        log.warning("%s of memory do not do for a look at the tables: now with %s", LITTLE, MUCH)
        return work(MUCH)


@contextmanager
def scratch(*, memory: str = "1GB", threads: int = 2) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection whose temporary tables and spilled pieces are gone when it is closed."""
    with tempfile.TemporaryDirectory(prefix="dcp-scratch-") as directory:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "memory_limit": memory,
            "temp_directory": directory,
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("set TimeZone = 'UTC'")
            yield connection
