"""Rows of a Trino as Arrow batches, for `dcp sql --engine trino`.

Types that Arrow has no plain form of (maps, rows, arrays, intervals, …) become JSON text, as in CSV.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dc_platform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 2_000
_DECIMAL = re.compile(r"decimal\((\d+), ?(\d+)\)")
_TIMESTAMP = re.compile(r"timestamp(?:\(\d+\))?( with time zone)?")


class QueryFailedError(PlatformError):
    """The server refused the query or could not run it."""


class TrinoRows:
    """The rows of one statement, as `serving.results` wants them. Raises QueryFailedError."""

    def __init__(self, base_url: str, statement: str) -> None:
        from trino.dbapi import connect

        address = urlsplit(base_url)
        self._connection = connect(
            host=address.hostname,
            port=address.port,
            http_scheme=address.scheme,
            user="dcp",
            source="dcp sql",
            catalog="lake",
            # The union is `events` there; other tables are named with their layer.
            schema="default",
            timezone="UTC",
        )
        self._cursor = self._connection.cursor()
        self._run(lambda: self._cursor.execute(statement))
        described = self._run(lambda: self._cursor.description) or []
        import pyarrow as pa

        self._types = [str(column[1]) for column in described]
        self.schema = pa.schema(
            [
                (str(column[0]), _arrow_type(type_))
                for column, type_ in zip(described, self._types, strict=True)
            ]
        )

    def __enter__(self) -> TrinoRows:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _e: BaseException | None, _tb: TracebackType | None
    ) -> None:
        # Trino ends the query when its cursor is closed; that a broken one cannot be says nothing new.
        with suppress(Exception):
            self._cursor.cancel()
        self._connection.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        while rows := self._run(lambda: self._cursor.fetchmany(_ROWS)):
            columns = [
                _column([row[i] for row in rows], field.type) for i, field in enumerate(self.schema)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _run(self, step: Callable[[], Any]) -> Any:
        from requests.exceptions import RequestException
        from trino.exceptions import Error, TrinoQueryError

        try:
            return step()
        except TrinoQueryError as error:
            raise QueryFailedError(f"Trino: {error.error_name}: {error.message}") from error
        except RequestException as error:
            raise QueryFailedError(
                f"Trino did not answer ({error}); is it up? (dcp status)"
            ) from error
        except Error as error:
            raise QueryFailedError(f"Trino: {error}") from error


def _arrow_type(type_: str) -> pa.DataType:
    import pyarrow as pa

    plain = {
        "bigint": pa.int64(),
        "integer": pa.int32(),
        "smallint": pa.int16(),
        "tinyint": pa.int8(),
        "double": pa.float64(),
        "real": pa.float32(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "varbinary": pa.binary(),
    }
    if type_ in plain:
        return plain[type_]
    if found := _DECIMAL.fullmatch(type_):
        return pa.decimal128(int(found[1]), int(found[2]))
    if found := _TIMESTAMP.fullmatch(type_):
        return pa.timestamp("us", "UTC" if found[1] else None)
    return pa.string()


def _column(values: list[Any], type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_string(type_):
        values = [v if v is None or isinstance(v, str) else _text(v) for v in values]
    return pa.array(values, type_)


def _text(value: Any) -> str:
    from dc_platform.serving.values import as_text, jsonable

    plain = jsonable(value)
    return plain if isinstance(plain, str) else as_text(plain)
