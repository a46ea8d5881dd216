"""Rows to JSON, tables, CSV and Arrow, streamed. `values.py` says how each value looks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dc_platform.serving.values import texts, values

Format = Literal["json", "table", "csv", "arrow"]


class Batches(Protocol):
    """Rows that come in batches of one schema."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """The batches, once."""


def plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows of a batch with values that JSON has."""
    names = _unique(batch.schema.names)
    columns = [values(column) for column in batch.columns]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


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


def json_array(reader: Batches) -> Iterator[bytes]:
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


def table_json(reader: Batches) -> Iterator[bytes]:
    """One JSON object: `columns` (name, and kind: time, number, text or other), `rows` as arrays, and
    `more`, whether there were more rows than were asked for.
    """
    encode = msgspec.json.Encoder().encode
    names = _unique(reader.schema.names)
    columns = [
        {"name": name, "kind": _kind(field.type)}
        for name, field in zip(names, reader.schema, strict=True)
    ]
    yield b'{"columns":' + encode(columns) + b',"rows":['
    first = True
    for batch in reader:
        rows = zip(*(values(column) for column in batch.columns), strict=True)
        if text := b",\n".join(encode(row) for row in rows):
            yield text if first else b",\n" + text
            first = False
    yield b'],"more":' + encode(getattr(reader, "cut", False)) + b"}\n"


def _kind(type_: pa.DataType) -> str:
    """What a reader can do with the values: time, number, text or other."""
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return "time"
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_decimal(type_):
        return "number"
    if pa.types.is_string(type_) or pa.types.is_boolean(type_):
        return "text"
    return "other"


class Limited:
    """The first rows of a result; `cut` says, at the end, whether there were more."""

    def __init__(self, rows: Batches, limit: int) -> None:
        self._rows = rows
        self._limit = limit
        self.schema = rows.schema
        self.cut = False

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        left = self._limit
        for batch in self._rows:
            if batch.num_rows > left:
                self.cut = True
                if left:
                    yield batch.slice(0, left)
                return
            left -= batch.num_rows
            yield batch


def csv_text(reader: Batches) -> Iterator[bytes]:
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
    return pa.array(texts(column), pa.string())


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def arrow_stream(reader: Batches) -> Iterator[bytes]:
    """An Arrow IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


WRITERS: Mapping[Format, Callable[[Batches], Iterator[bytes]]] = {
    "json": json_array,
    "table": table_json,
    "csv": csv_text,
    "arrow": arrow_stream,
}
