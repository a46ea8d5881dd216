"""HTTP of serving: query (design 4.2), SQL, health (design 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import duckdb
import msgspec
import pyarrow as pa
from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from dc_platform.registry.access import need_scope
from dc_platform.registry.tokens import Scope, TokenOwner
from dc_platform.serving import results
from dc_platform.serving.answers import answer
from dc_platform.serving.engine import Engine, QueryTimeoutError
from dc_platform.serving.guard import RefusedError
from dc_platform.serving.health import health
from dc_platform.serving.query import Query, QueryError
from dc_platform.serving.tail import Tail
from dc_platform.serving.view import View

router = APIRouter(prefix="/api/v1")
Reader = Annotated[TokenOwner, Depends(need_scope(Scope.QUERY))]
_encode = msgspec.json.Encoder().encode


@router.post("/query")
def post_query(query: Query, request: Request, reader: Reader) -> Response:
    """Filter, aggregate and group events: what is in Delta and what is still in Kafka, each once."""
    engine: Engine = request.app.state.engine
    try:
        content = answer(engine, _view(request), query, tenant_id=reader.tenant_id)
    except QueryError as error:
        raise HTTPException(422, str(error)) from error
    except QueryTimeoutError as error:
        raise HTTPException(504, str(error)) from error
    except duckdb.OutOfMemoryException as error:
        raise HTTPException(507, _out_of_memory(error)) from error
    except duckdb.Error as error:
        raise HTTPException(422, str(error).split("\n")[0]) from error
    return Response(_encode(content), media_type="application/json")


class SqlRequest(BaseModel):
    """Body of POST /sql."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(min_length=1, max_length=100_000)
    parameters: list[str | int | float | bool | None] = Field(default_factory=list)
    format: Literal["json", "csv", "arrow"] = "json"


_MEDIA = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}
_WRITERS = {
    "json": results.json_array,
    "csv": results.csv_text,
    "arrow": results.arrow_stream,
}


@router.post("/sql")
def post_sql(body: SqlRequest, request: Request, reader: Reader) -> StreamingResponse:
    """One SELECT over events, bronze.events, silver.events, silver.quarantine; streams all rows.

    JSON answers are one array of row objects. The header `X-Complete` says whether the tail held
    all that Kafka had.
    """
    view = _view(request)
    rows = _start(request.app.state.engine, body, view, reader.tenant_id)
    first = next(rows)
    if isinstance(first, HTTPException):
        raise first

    def stream() -> Iterator[bytes]:
        yield first
        for part in rows:
            if isinstance(part, HTTPException):
                # The status line is out: breaking off is the only way left to say so.
                raise RuntimeError(part.detail)
            yield part

    return StreamingResponse(
        stream(),
        media_type=_MEDIA[body.format],
        headers={"X-Complete": "true" if view.complete else "false"},
    )


def _start(
    engine: Engine, body: SqlRequest, view: View, tenant_id: str
) -> Iterator[bytes | HTTPException]:
    try:
        with engine.run_sql(
            body.sql, view, tenant_id=tenant_id, parameters=body.parameters
        ) as reader:
            yield from _WRITERS[body.format](reader)
    except RefusedError as error:
        yield HTTPException(400, str(error))
    except QueryTimeoutError as error:
        yield HTTPException(504, str(error))
    except duckdb.OutOfMemoryException as error:
        yield HTTPException(507, _out_of_memory(error))
    except (duckdb.Error, pa.ArrowException) as error:
        yield HTTPException(400, str(error).split("\n")[0])


@router.get("/monitoring/health")
def get_health(request: Request) -> dict[str, Any]:
    """Health of ingestion, processing and storage."""
    return health(request.app.state.tail, request.app.state.lake_uri)


def _view(request: Request) -> View:
    tail: Tail = request.app.state.tail
    if tail.view is None:
        raise HTTPException(503, "Serving is starting.", headers={"Retry-After": "1"})
    return tail.view


def _out_of_memory(error: Exception) -> str:
    return (
        f"The query needs more memory than DCP_QUERY_MEMORY_MB lets it have: ask for fewer rows or"
        f" groups. {str(error).splitlines()[0]}"
    )
