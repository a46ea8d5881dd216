"""HTTP of serving: query (design 4.2), search and SQL."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from dc_platform.registry.access import need_scope
from dc_platform.registry.tokens import Scope, TokenOwner
from dc_platform.serving import results
from dc_platform.serving.answers import answer
from dc_platform.serving.engine import Engine
from dc_platform.serving.query import Query
from dc_platform.serving.refusals import KNOWN, refusal
from dc_platform.serving.rows import Clock
from dc_platform.serving.search import Search, SearchRequest
from dc_platform.serving.streams import Parts, Streamed, first_of
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
        content = answer(engine, current_view(request), query, tenant_id=reader.tenant_id)
    except KNOWN as error:
        raise refusal(error, bad=422) from error
    return Response(_encode(content), media_type="application/json")


@router.post("/search")
def post_search(body: SearchRequest, request: Request, reader: Reader) -> Response:
    """Full text over payloads and logs, newest first, with the places that match."""
    search: Search = request.app.state.search
    try:
        content = search.answer(current_view(request), body, tenant_id=reader.tenant_id)
    except KNOWN as error:
        raise refusal(error, bad=422) from error
    return Response(_encode(content), media_type="application/json")


class SqlRequest(BaseModel):
    """Body of POST /sql."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(min_length=1, max_length=100_000)
    parameters: list[str | int | float | bool | None] = Field(default_factory=list)
    format: Literal["json", "table", "csv", "arrow"] = "json"
    limit: int | None = Field(None, ge=1)


_MEDIA = {
    "json": "application/json",
    "table": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}
_WRITERS = {
    "json": results.json_array,
    "table": results.table_json,
    "csv": results.csv_text,
    "arrow": results.arrow_stream,
}


@router.post("/sql")
async def post_sql(
    body: SqlRequest,
    request: Request,
    reader: Reader,
    x_framed: Annotated[bool, Header()] = False,
) -> StreamingResponse:
    """One SELECT over events, bronze.events, silver.events, silver.quarantine; streams all rows.

    JSON answers are one array of row objects, tables one object with `columns` and `rows` as arrays.
    `limit` ends the query after so many rows. The header `X-Complete` says whether the tail held
    all that Kafka had. `X-Framed` asks for frames, which can tell of an error after the first rows.
    """
    view = current_view(request)
    running: list[Clock] = []
    parts = _parts(request.app.state.engine, body, view, reader.tenant_id, running)

    def interrupt() -> None:
        for clock in running:
            clock.interrupt()

    first = await first_of(parts, interrupt, request.is_disconnected)
    if isinstance(first, HTTPException):
        raise first
    return Streamed(
        first,
        parts,
        interrupt,
        frames=x_framed,
        media_type="application/vnd.dcp.frames" if x_framed else _MEDIA[body.format],
        headers={"X-Complete": "true" if view.complete else "false"},
    )


def _parts(
    engine: Engine, body: SqlRequest, view: View, tenant_id: str, running: list[Clock]
) -> Parts:
    try:
        with engine.run_sql(
            body.sql,
            view,
            tenant_id=tenant_id,
            parameters=body.parameters,
            # A reader of Arrow gets digits: DuckDB's bytes of a bignum are nobody else's.
            wide="varchar" if body.format == "arrow" else "bignum",
            starts=running.append,
        ) as rows:
            asked = results.Limited(rows, body.limit) if body.limit else rows
            yield from _WRITERS[body.format](asked)
    except KNOWN as error:
        yield refusal(error, bad=400)


def current_view(request: Request) -> View:
    """The newest view of the union; 503 while there is none."""
    tail: Tail = request.app.state.tail
    if tail.view is None:
        raise HTTPException(503, "Serving is starting.", headers={"Retry-After": "1"})
    return tail.view
