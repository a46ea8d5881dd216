"""HTTP of monitoring: health and metrics of design 4.4, and what the dashboard asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response

from dc_platform.contracts.fields import QueryError
from dc_platform.contracts.tables import SILVER_QUARANTINE
from dc_platform.registry.sources import Sources
from dc_platform.registry.tokens import TokenOwner
from dc_platform.serving.alerts import Ledger, of_health
from dc_platform.serving.conditions import from_url, microseconds
from dc_platform.serving.engine import Engine
from dc_platform.serving.health import health
from dc_platform.serving.measures import METRICS, Measures, Window
from dc_platform.serving.monitor import Moment, Monitor
from dc_platform.serving.overview import Span, overview
from dc_platform.serving.routes import Reader
from dc_platform.serving.sizes import Sizes
from dc_platform.serving.view import View
from dc_platform.serving.views import current_view

router = APIRouter(prefix="/api/v1/monitoring")
_encode = msgspec.json.Encoder().encode

# All requests of HTTP share 40 threads; those for monitoring are short and take no turn.
_AT_ONCE = 8
_POINTS = 720
_QUARTER_MS = 15 * 60_000


class Monitoring:
    """What monitoring keeps between requests."""

    def __init__(self, engine: Engine, sources: Sources) -> None:
        self.engine = engine
        self.monitor = Monitor(engine.temporary)
        self.sizes = Sizes(engine, self.monitor.counter)
        self.ledger = Ledger(engine)
        self.sources = sources
        self.room = anyio.Semaphore(_AT_ONCE)

    def moment(self, view: View) -> Moment:
        """The last day at the moment of a view."""
        return self.monitor.moment(view, self.engine.snapshot(SILVER_QUARANTINE, view))


async def take_room(request: Request) -> AsyncIterator[None]:
    """A dependency: a few are answered at once, the others wait without a thread."""
    async with _monitoring(request).room:
        yield


WithRoom = Depends(take_room)


@router.get("/health")
def get_health(request: Request) -> dict[str, Any]:
    """Health of ingestion, processing and storage."""
    return health(request.app.state.tail, request.app.state.lake_uri)


@router.get("/metrics", dependencies=[WithRoom])
def get_metrics(
    request: Request,
    reader: Reader,
    from_: Annotated[str | None, Query(alias="from")] = None,
    to: str | None = None,
    metrics: str = ",".join(METRICS),
    series: bool = False,
) -> Response:
    """`current`, `avg` and `max` of metrics over [from, to), of the last 24 hours; with `series` also
    a value for each step.
    """
    names = [name.strip() for name in metrics.split(",")]
    for name in names:
        if name not in METRICS:
            raise HTTPException(
                422, f"metrics: there is no {name!r}; there are {', '.join(METRICS)}"
            )
    moment = _monitoring(request).moment(current_view(request))
    try:
        to_ms = _ms("to", to, moment.at_ms)
        from_ms = _ms("from", from_, to_ms - _QUARTER_MS)
    except QueryError as error:
        raise HTTPException(422, str(error)) from error
    if from_ms >= to_ms:
        raise HTTPException(422, "from has to be before to")
    window = Window.of(max(from_ms, moment.since_ms), to_ms, moment.at_ms, points=_POINTS)
    measures = Measures(moment, reader.tenant_id, window)
    content: dict[str, Any] = {"metrics": {name: measures.metric(name) for name in names}}
    if series:
        content["step"] = window.step_ms
        content["timestamps"] = window.timestamps
        for name in names:
            content["metrics"][name]["series"] = measures.series(name)
    if from_ms < moment.since_ms:
        content["countedSince"] = moment.since_ms
    return _json(content)


@router.get("/overview", dependencies=[WithRoom])
def get_overview(request: Request, reader: Reader, window: Span = Span.QUARTER) -> Response:
    """All that the dashboard shows of the last 15 minutes, hour or day."""
    monitoring = _monitoring(request)
    view = current_view(request)
    moment = monitoring.moment(view)
    key = (reader.tenant_id, window)
    answer = moment.answers.get(key)
    if answer is None:
        state = request.app.state
        content = overview(moment, reader.tenant_id, window, _names(monitoring.sources, reader))
        content["health"] = health(state.tail, state.lake_uri)
        ledger = monitoring.ledger.of(view, reader.tenant_id)
        content["ledgerMade"] = ledger.made_ms
        content["alerts"] = [*of_health(content["health"]), *ledger.alerts]
        answer = moment.answers[key] = _encode(content)
    return Response(answer, media_type="application/json")


@router.get("/tables", dependencies=[WithRoom])
def get_tables(request: Request, reader: Reader) -> Response:
    """Rows, bytes and files of every table, the tenant's own."""
    tables = _monitoring(request).sizes.tables(current_view(request), reader.tenant_id)
    return _json({"tables": tables})


def _monitoring(request: Request) -> Monitoring:
    kept: Monitoring = request.app.state.monitoring
    return kept


def _names(sources: Sources, reader: TokenOwner) -> Any:
    known: dict[str, str | None] = {}

    def name_of(source_id: str) -> str | None:
        if source_id not in known:
            source = sources.get(source_id)
            own = source is not None and source.tenant_id == reader.tenant_id
            known[source_id] = source.name if source and own else None
        return known[source_id]

    return name_of


def _ms(name: str, text: str | None, otherwise: int) -> int:
    at = microseconds(name, from_url(text))
    return otherwise if at is None else at // 1000


def _json(content: Any) -> Response:
    return Response(_encode(content), media_type="application/json")
