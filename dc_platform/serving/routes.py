"""HTTP of serving: query (design 4.2), search and SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio.to_thread
import msgspec
from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dc_platform.registry.access import need_scope
from dc_platform.registry.tokens import Scope, TokenOwner
from dc_platform.serving.answers import answer
from dc_platform.serving.engine import Engine
from dc_platform.serving.query import Query, whole
from dc_platform.serving.readers import Readers
from dc_platform.serving.refusals import KNOWN, refusal
from dc_platform.serving.results import Format
from dc_platform.serving.search import Search, SearchRequest
from dc_platform.serving.sql import Sql, format_of, stream
from dc_platform.serving.turns import Turns
from dc_platform.serving.views import current_view, view_as_of

router = APIRouter(prefix="/api/v1")
Reader = Annotated[TokenOwner, Depends(need_scope(Scope.QUERY))]
_encode = msgspec.json.Encoder().encode


async def take_turn(request: Request, reader: Reader) -> AsyncIterator[None]:
    """A dependency: the request is answered when it is its tenant's turn."""
    turns: Turns = request.app.state.turns
    async with turns.taken(reader.tenant_id):
        yield


InTurn = Depends(take_turn)


class AskedQuery(Query):
    """Body of POST /query: with `asOf`, a version of silver or a time, of what had landed then."""

    as_of: int | str | None = Field(default=None, alias="asOf")


@router.post("/query")
async def post_query(query: AskedQuery, request: Request, reader: Reader) -> Response:
    """Filter, aggregate and group events: what is in Delta and what is still in Kafka, each once."""
    engine: Engine = request.app.state.engine
    readers: Readers = request.app.state.readers
    turns: Turns = request.app.state.turns
    tenant_id = reader.tenant_id

    def answered() -> bytes:
        view = view_as_of(request, query.as_of, tenant_id)
        return _encode(answer(engine, view, query, tenant_id=tenant_id))

    content: bytes | None = None
    async with turns.taken(tenant_id):
        try:
            if query.as_of is None:
                view = current_view(request)
                content = await readers.answer(view, query, tenant_id=tenant_id)
            if content is None:
                content = await anyio.to_thread.run_sync(answered)
        except KNOWN as error:
            raise refusal(error, bad=422) from error
    return Response(content, media_type="application/json")


@router.post("/search", dependencies=[InTurn])
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

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    sql: str = Field(min_length=1, max_length=100_000)
    parameters: Annotated[list[str | int | float | bool | None], AfterValidator(whole)] = Field(
        default_factory=list, max_length=1000
    )
    format: Format | None = None
    limit: int | None = Field(None, ge=1)
    as_of: int | str | None = Field(None, alias="asOf")


@router.post("/sql")
async def post_sql(
    body: SqlRequest,
    request: Request,
    reader: Reader,
    accept: Annotated[str | None, Header()] = None,
    x_framed: Annotated[bool, Header()] = False,
) -> StreamingResponse:
    """One SELECT over the platform's tables; streams all rows, as `format` or the header Accept says.

    JSON answers are one array of row objects, tables one object with `columns` and `rows` as arrays.
    `limit` ends the query after so many rows, `asOf` asks what had landed then. The header
    `X-Complete` says whether the tail held all that Kafka had. `X-Framed` asks for frames, which can
    tell of an error after the first rows.
    """
    form = body.format or format_of(accept)
    asked = Sql(body.sql, body.parameters, form, body.limit, body.as_of)
    return await stream(request, asked, tenant_id=reader.tenant_id, framed=x_framed)
