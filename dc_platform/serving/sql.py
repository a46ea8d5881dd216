"""Answers to SQL that people wrote, as streams: of POST /api/v1/sql and of saved reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import HTTPException, Request
from fastapi.responses import StreamingResponse

from dc_platform.serving.engine import Engine
from dc_platform.serving.past import as_of
from dc_platform.serving.refusals import KNOWN, refusal
from dc_platform.serving.results import Format
from dc_platform.serving.sql_pool import Running
from dc_platform.serving.streams import Parts, Streamed, first_of
from dc_platform.serving.turns import Turns
from dc_platform.serving.views import current_view, past_views

MEDIA: Mapping[Format, str] = {
    "json": "application/json",
    "table": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
}


class Sql(NamedTuple):
    """What is asked: parameters by place, or by name. `limit`: rows; None: all."""

    text: str
    parameters: Sequence[Any] | Mapping[str, Any]
    format: Format
    limit: int | None = None
    as_of: int | str | None = None


def format_of(accept: str | None) -> Format:
    """The format that a header Accept names first; JSON when it names none of ours."""
    wanted = [part.split(";")[0].strip().lower() for part in (accept or "").split(",")]
    named: dict[str, Format] = {
        "text/csv": "csv",
        "application/json": "json",
        "application/vnd.apache.arrow.stream": "arrow",
    }
    return next((named[media] for media in wanted if media in named), "json")


async def stream(
    request: Request, asked: Sql, *, tenant_id: str, framed: bool
) -> StreamingResponse:
    """The answer, once its first part is there; raises HTTPException before that."""
    turns: Turns = request.app.state.sql_turns
    complete = asked.as_of is not None or current_view(request).complete
    running: list[Running] = []
    parts = _parts(request, asked, tenant_id, running)

    def interrupt() -> None:
        for query in running:
            query.interrupt()

    await turns.take(tenant_id)
    try:
        first = await first_of(parts, interrupt, request.is_disconnected)
        if isinstance(first, HTTPException):
            raise first
    except BaseException:
        turns.give_back(tenant_id)
        raise
    return Streamed(
        first,
        parts,
        interrupt,
        done=lambda: turns.give_back(tenant_id),
        frames=framed,
        media_type="application/vnd.dcp.frames" if framed else MEDIA[asked.format],
        headers={"X-Complete": "true" if complete else "false"},
    )


def _parts(request: Request, asked: Sql, tenant_id: str, running: list[Running]) -> Parts:
    engine: Engine = request.app.state.engine
    try:
        past = past_views(request, tenant_id)
        view = current_view(request) if asked.as_of is None else past(as_of(asked.as_of))
        with engine.run_sql(
            asked.text,
            view,
            tenant_id=tenant_id,
            past=past,
            parameters=asked.parameters,
            format_=asked.format,
            limit=asked.limit,
            starts=running.append,
        ) as parts:
            yield from parts
    except KNOWN as error:
        yield refusal(error, bad=400)
