"""`dcp sql`: asks the serving process or Trino, streams all rows."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.options import DataDir, settings_of
from dc_platform.cli.trino_rows import QueryFailedError
from dc_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    import httpx
    import pyarrow as pa


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"


class EngineName(StrEnum):
    """Who answers."""

    DUCKDB = "duckdb"
    TRINO = "trino"


# A table is laid out by its first rows; more than a screen of columns is nobody's table.
_LAYOUT_ROWS = 200
_CELL = 60


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(sql)


def sql(
    statement: Annotated[str, typer.Argument(help="One SELECT.", metavar="SQL")],
    engine: Annotated[EngineName, typer.Option(help="Who answers.")] = EngineName.DUCKDB,
    format_: Annotated[Format, typer.Option("--format", help="How rows are printed.")] = (
        Format.TABLE
    ),
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="Version of silver, or time: what had landed by then."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Ask the union (`events`) or a table: bronze.events, silver.events, silver.quarantine, …"""
    from dc_platform.cli.client import stack_info, trino_url

    settings = settings_of(data_dir)
    if engine is EngineName.TRINO:
        if as_of is not None:
            raise ConfigurationError("--as-of is for DuckDB: leave --engine trino out")
        parts = _ask_trino(trino_url(settings), statement, format_)
    else:
        asked = {"sql": statement, "format": wire_of(format_)}
        if as_of is not None:
            asked["asOf"] = as_of
        base_url = stack_info(settings.data_dir)["query"]
        parts = ask_serving(settings.data_dir, base_url, "POST", "/sql", format_, json=asked)
    print_parts(parts)


def print_parts(parts: Iterator[bytes]) -> None:
    """To standard output, as far as its reader wants them."""
    output = sys.stdout.buffer
    try:
        for part in parts:
            output.write(part)
        output.flush()
    except BrokenPipeError:
        # The reader has seen enough (`| head`): no error, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wire_of(format_: Format) -> str:
    """The format that serving is asked for: a table is laid out here."""
    return (Format.ARROW if format_ is Format.TABLE else format_).value


def ask_serving(
    directory: Path, base_url: str, method: str, path: str, format_: Format, **request: Any
) -> Iterator[bytes]:
    """What serving answers to a request for rows, as it is to be printed."""
    from dc_platform.cli.client import local_token
    from dc_platform.registry.tokens import Scope

    token = local_token(directory, Scope.QUERY)
    parts = _ask(base_url, token, method, path, request)
    return _table(parts) if format_ is Format.TABLE else parts


def _ask_trino(base_url: str, statement: str, format_: Format) -> Iterator[bytes]:
    from dc_platform.cli.trino_rows import TrinoRows
    from dc_platform.serving import results

    with TrinoRows(base_url, statement) as rows:
        if format_ is Format.JSON:
            yield from results.json_array(rows)
        elif format_ is Format.CSV:
            yield from results.csv_text(rows)
        elif format_ is Format.ARROW:
            yield from results.arrow_stream(rows)
        else:
            yield from _table(results.arrow_stream(rows))


def _ask(
    base_url: str, token: str, method: str, path: str, request: dict[str, Any]
) -> Iterator[bytes]:
    import httpx

    # In frames an error after the first rows comes with its reason.
    headers = {"Authorization": f"Bearer {token}", "X-Framed": "true"}
    begun = False
    try:
        with (
            httpx.Client(timeout=httpx.Timeout(10, read=None)) as client,
            client.stream(method, f"{base_url}/api/v1{path}", headers=headers, **request) as answer,
        ):
            if answer.status_code != 200:
                answer.read()
                raise QueryFailedError(detail_of(answer))
            if answer.headers.get("x-complete") == "false":
                print("note: serving has not caught up with Kafka yet", file=sys.stderr)
            begun = True
            framed = "frames" in answer.headers.get("content-type", "")
            yield from _unframed(answer.iter_raw()) if framed else answer.iter_bytes()
    except httpx.HTTPError as error:
        if begun:
            raise QueryFailedError(
                f"serving at {base_url} broke off in the middle of the rows ({error}):"
                " what was printed is not all; ask again"
            ) from error
        raise QueryFailedError(
            f"serving at {base_url} did not answer ({error}); is the stack up? (dcp status)"
        ) from error


def _unframed(received: Iterator[bytes]) -> Iterator[bytes]:
    """The parts of an answer in frames (docs/api.md); raises the reason when it is not all."""
    source = io.BufferedReader(_Source(received))
    while size := int.from_bytes(source.read(4), "big"):
        yield source.read(size)
    if not (end := source.read()):
        raise QueryFailedError("the answer broke off: what was printed is not all; ask again")
    if reason := json.loads(end).get("detail"):
        raise QueryFailedError(reason)


def detail_of(answer: httpx.Response) -> str:
    """Why the server refused, in its own words."""
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError):
        return f"HTTP {answer.status_code}: {answer.text[:500]}"
    return detail if isinstance(detail, str) else str(detail)


class _Source(io.RawIOBase):
    """The parts of an answer as a file, so that Arrow can read them as they come."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            part = next(self._parts, None)
            if part is None:
                return 0
            self._rest = memoryview(part)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _table(parts: Iterator[bytes]) -> Iterator[bytes]:
    import pyarrow as pa

    source: IO[bytes] = io.BufferedReader(_Source(parts))
    reader = pa.ipc.open_stream(source)
    widths: list[int] | None = None
    count = 0
    for batch in reader:
        for start in range(0, batch.num_rows, _LAYOUT_ROWS):
            rows = _cells(batch.slice(start, _LAYOUT_ROWS))
            if widths is None:
                widths = _widths(reader.schema.names, rows)
                yield _head(reader.schema.names, widths)
            yield b"".join(_line(row, widths) for row in rows)
            count += len(rows)
    if widths is None:
        yield _head(reader.schema.names, _widths(reader.schema.names, []))
    yield f"({count} row{'' if count == 1 else 's'})\n".encode()


def _cells(batch: pa.RecordBatch) -> list[list[str]]:
    from dc_platform.serving.values import texts

    columns = [[_text(text) for text in texts(column)] for column in batch.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _text(value: str | None) -> str:
    text = "" if value is None else value
    text = text.replace("\n", "⏎")
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _widths(names: list[str], rows: list[list[str]]) -> list[int]:
    return [max([len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(names)]


def _line(cells: list[str], widths: list[int]) -> bytes:
    return (
        " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip() + "\n"
    ).encode()


def _head(names: list[str], widths: list[int]) -> bytes:
    return _line(names, widths) + ("-+-".join("-" * w for w in widths) + "\n").encode()
