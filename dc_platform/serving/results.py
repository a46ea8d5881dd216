"""Rows to JSON, CSV and Arrow, streamed.

Times become ISO 8601 in UTC, integers of any width stay numbers (DuckDB's HUGEINT comes as a decimal
without fraction), bytes that are not UTF-8 become base64.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv


def jsonable(value: Any) -> Any:
    """A value of Arrow as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds" if not value.microsecond % 1000 else "auto")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        if value == value.to_integral_value() and -value.as_tuple().exponent <= 0:  # type: ignore[operator]
            return int(value)
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, list):
        if value and isinstance(value[0], tuple) and len(value[0]) == 2:
            return {str(k): jsonable(v) for k, v in value}
        return [jsonable(v) for v in value]
    if isinstance(value, dict):
        return {k: jsonable(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [jsonable(v) for v in value]
    return value


def plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of a batch with values that JSON has."""
    names = _unique(batch.schema.names)
    columns = [_values(column) for column in batch.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.Array) -> list[Any]:
    """The values of a column as JSON has them."""
    type_ = column.type
    if pa.types.is_timestamp(type_) and type_.unit == "ns":
        column = column.cast(pa.timestamp("us", type_.tz), safe=False)
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        # A time that Python has not: before the year 1, after 9999, or infinity.
        values = column.cast(pa.string()).to_pylist()
    if pa.types.is_integer(type_) or pa.types.is_string(type_) or pa.types.is_boolean(type_):
        return values
    if pa.types.is_map(type_):
        return [None if v is None else {str(k): jsonable(item) for k, item in v} for v in values]
    return [jsonable(value) for value in values]


def _unique(names: list[str]) -> list[str]:
    """The names, those that stand twice with a number that makes them different from all others."""
    taken = set(names)
    result: list[str] = []
    for name in names:
        candidate, number = name, 0
        while candidate in result or (number and candidate in taken):
            number += 1
            candidate = f"{name}_{number}"
        result.append(candidate)
    return result


def json_array(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    """One JSON array of row objects."""
    encode = msgspec.json.Encoder().encode
    yield b"["
    first = True
    for batch in reader:
        for start in range(0, batch.num_rows, 2000):
            rows = plain_rows(batch.slice(start, 2000))
            text = b",\n".join(encode(row) for row in rows)
            if text:
                yield text if first else b",\n" + text
                first = False
    yield b"]\n"


def csv_text(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    """RFC 4180 with a header line; nested values are JSON."""
    yield (",".join(_quoted(name) for name in _unique(reader.schema.names)) + "\n").encode()
    for batch in reader:
        columns = [_csv_column(column) for column in batch.columns]
        sink = io.BytesIO()
        table = pa.table(columns, names=[str(i) for i in range(len(columns))])
        pacsv.write_csv(table, sink, pacsv.WriteOptions(include_header=False))
        yield sink.getvalue()


def _csv_column(column: pa.Array) -> pa.Array:
    type_ = column.type
    if pa.types.is_floating(type_):
        return pc.if_else(pc.is_finite(column), column, pa.scalar(None, type_))
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_) or pa.types.is_decimal(type_):
        return column
    encode = msgspec.json.Encoder().encode
    texts = [
        value if value is None or isinstance(value, str) else encode(value).decode()
        for value in _values(column)
    ]
    return pa.array(texts, pa.string())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def arrow_stream(reader: pa.RecordBatchReader) -> Iterator[bytes]:
    """An Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()
