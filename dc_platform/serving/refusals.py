"""Errors to statuses, each with one sentence that says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from dc_platform.contracts.fields import QueryError
from dc_platform.errors import RetriableError
from dc_platform.lake.past import NoSuchVersionError
from dc_platform.search.language import SyntaxMistakeError
from dc_platform.serving.guard import RefusedError
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.sql_pool import QueryDiedError

KNOWN = (
    RefusedError,
    QueryError,
    SyntaxMistakeError,
    QueryTimeoutError,
    QueryDiedError,
    NoSuchVersionError,
    RetriableError,
    duckdb.Error,
    pa.ArrowException,
    MemoryError,
)
_AGAIN = {"Retry-After": "2"}


def refusal(error: Exception, *, bad: int) -> HTTPException:
    """What is answered to one of KNOWN; `bad` is the status of a query that cannot be run."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    # Of an error in a function of ours only what it says.
    reason = re.sub(r"^.* executing the UDF: \w+: ", "", reason)
    if isinstance(error, RetriableError):
        return HTTPException(503, f"Try again soon: {reason}", headers=_AGAIN)
    if isinstance(error, QueryTimeoutError):
        return HTTPException(504, reason)
    if isinstance(error, QueryDiedError):
        return HTTPException(503, reason)
    if isinstance(error, duckdb.OutOfMemoryException | MemoryError):
        return HTTPException(
            507,
            "The query needs more memory than DCP_QUERY_MEMORY_MB (in SQL DCP_SQL_MEMORY_MB), or more"
            " disk to spill to than DCP_QUERY_TEMP_MB lets it have: ask for fewer rows or groups."
            f" {reason}",
        )
    if isinstance(error, duckdb.InternalException | duckdb.FatalException):
        return HTTPException(
            503, f"Try again soon: a query made DuckDB fail. {reason}", headers=_AGAIN
        )
    if isinstance(error, duckdb.IOException):
        return HTTPException(
            503,
            "Try again soon: a file that the query reads was replaced meanwhile, or cannot be read.",
            headers=_AGAIN,
        )
    return HTTPException(bad, reason)


def install(app: FastAPI) -> None:
    """Answer errors of the store, the registry and bodies that are not understood."""

    @app.exception_handler(RetriableError)
    def away(_request: Request, error: RetriableError) -> JSONResponse:
        answer = refusal(error, bad=500)
        return JSONResponse({"detail": answer.detail}, 503, headers=_AGAIN)

    @app.exception_handler(RequestValidationError)
    def not_understood(_request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": sentence(error.errors())}, 422)


def sentence(errors: Iterable[Mapping[str, Any]]) -> str:
    """pydantic's errors as one sentence with the paths of the fields."""
    found: dict[str, list[str]] = {}
    for error in errors:
        path = _path(error["loc"], error["type"])
        text = _reason(error)
        if text not in found.setdefault(path, []):
            found[path].append(text)
    # Each type that a field may have complains for itself: "a valid integer or a valid string".
    prefix = "should be "
    parts = []
    for path, reasons in found.items():
        rest = [r.removeprefix(prefix) for r in reasons[1:]]
        parts.append(f"{path} {' or '.join([reasons[0], *rest])}")
    return "; ".join(parts)


# Pydantic names the type of a union that it tried at the end of the path.
_TYPES = frozenset({"int", "float", "str", "bool"})


def _path(location: Sequence[str | int], kind: str) -> str:
    if kind == "json_invalid":
        return "the body"
    steps = list(location[1:])
    if len(steps) > 1 and steps[-1] in _TYPES:
        steps.pop()
    path = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps)
    return path.lstrip(".") or "the body"


def _reason(error: Mapping[str, Any]) -> str:
    kind, message = error["type"], str(error["msg"])
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not a known field"
    if kind == "json_invalid":
        return f"is not JSON: {error.get('ctx', {}).get('error', message)}"
    # "Input should be greater than 0", "String should have at least 1 character".
    _, should, rest = message.partition(" should ")
    return f"should {rest}" if should else f"is wrong: {message}"
