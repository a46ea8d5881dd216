"""A process that runs SQL of people, one query at a time, and may die of it.

DuckDB looks for an interrupt between two vectors of rows, not within a function and not while it binds
a statement: there are SELECTs of one line that nothing but SIGKILL ends, and others that end the
process. So they run here, where nothing is lost: no state, no tail, no other query (`sql_pool.py`).

Each answer is frames, a letter and bytes: P a part of the answer, E an error (its kind and text as
JSON), and . the end. Nothing that comes from here is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import duckdb
import msgspec
import pyarrow as pa

from dc_platform.serving.forks import settle
from dc_platform.serving.guard import RefusedError
from dc_platform.serving.instance import Bounds, bounded, lock
from dc_platform.serving.results import WRITERS, Format, Limited
from dc_platform.serving.rows import Rows
from dc_platform.serving.sketch_functions import create_functions
from dc_platform.serving.tail_files import mapped

PART, ERROR, END = b"P", b"E", b"."
# A reader has a minute for each: 4 KB/s are enough.
FRAME = 2**18
# What an error may be on the other side.
KINDS: Mapping[str, type[Exception]] = {
    name: kind
    for name, kind in (
        *vars(duckdb).items(),
        *vars(pa.lib).items(),
        *((kind.__name__, kind) for kind in (RefusedError, MemoryError)),
    )
    if isinstance(kind, type)
    and issubclass(kind, duckdb.Error | pa.ArrowException | RefusedError | MemoryError)
}


class Asked(NamedTuple):
    """A query: what makes its views, the Arrow files that are the relation `tail`, and the SQL, with
    parameters by place or by name. `limit`: rows; None: all.
    """

    views: Sequence[str]
    tail: Sequence[str]
    sql: str
    parameters: Sequence[Any] | Mapping[str, Any]
    format: Format
    limit: int | None


class Failure(msgspec.Struct):
    """An error: its name among KINDS, or none, and what it says."""

    kind: str
    text: str


def work(connection: Connection, bounds: Bounds, memory: int) -> None:
    """Answer queries until the other side closes the connection; `memory`: bytes of this process."""
    settle(memory)
    instance = bounded(bounds)
    create_functions(instance)
    lock(instance, bounds)
    # Whoever asked is gone, or the process is.
    with suppress(EOFError, ConnectionError):
        while True:
            _answer(connection, instance, connection.recv())


def _answer(connection: Connection, instance: duckdb.DuckDBPyConnection, asked: Asked) -> None:
    try:
        for part in _parts(instance, asked):
            for start in range(0, len(part), FRAME):
                connection.send_bytes(PART + part[start : start + FRAME])
        connection.send_bytes(END)
    except ConnectionError:
        raise
    except Exception as error:
        connection.send_bytes(ERROR + msgspec.json.encode(_failure(error)))


def _parts(instance: duckdb.DuckDBPyConnection, asked: Asked) -> Iterator[bytes]:
    with instance.cursor() as cursor:
        if asked.tail:
            cursor.register("tail", mapped(asked.tail))
        for statement in asked.views:
            cursor.execute(statement)
        # A reader of Arrow gets digits: DuckDB's bytes of a bignum are nobody else's.
        wide = "varchar" if asked.format == "arrow" else "bignum"
        rows = Rows(cursor, asked.sql, asked.parameters, wide=wide)
        yield from WRITERS[asked.format](Limited(rows, asked.limit) if asked.limit else rows)


def _failure(error: Exception) -> Failure:
    kind = next((c.__name__ for c in type(error).__mro__ if KINDS.get(c.__name__) is c), "")
    text = str(error) if kind else repr(error)
    return Failure(kind, text.encode("utf-8", "replace").decode())
