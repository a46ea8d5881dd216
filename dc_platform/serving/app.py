"""Serving's process: wiring and an orderly end."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response

from dc_platform import __version__
from dc_platform.contracts.tables import TABLES
from dc_platform.lake.store import Lake
from dc_platform.priority import BEHIND, step_back_thread
from dc_platform.registry.access import BodyDoor, TokenRing
from dc_platform.registry.database import Database
from dc_platform.registry.metrics import Metrics
from dc_platform.registry.reports import Reports
from dc_platform.registry.retention import Retention
from dc_platform.registry.shapes import Shapes
from dc_platform.registry.sources import Sources
from dc_platform.registry.tokens import Tokens
from dc_platform.retention.run import RetentionRun
from dc_platform.serving import (
    admin,
    metrics,
    monitoring,
    page,
    pages,
    quarantine_routes,
    refusals,
    reports,
    routes,
)
from dc_platform.serving.engine import Engine
from dc_platform.serving.past import Past
from dc_platform.serving.readers import Readers
from dc_platform.serving.search import Search
from dc_platform.serving.tail import Tail
from dc_platform.serving.turns import Turns
from dc_platform.settings import Settings


def add_routes(app: FastAPI) -> None:
    """All that serving answers over HTTP but for its own health."""
    for part in (routes, monitoring, quarantine_routes, pages, admin, metrics, reports):
        app.include_router(part.router)
    app.add_middleware(BodyDoor, prefix="/api/v1/")
    page.install(app)
    refusals.install(app)


def create_app(settings: Settings, *, alone: bool = False) -> FastAPI:
    """Serving as an ASGI application. `alone`: in a process of its own, so that all but the tail may
    step back for it.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.registry)
        lake = Lake(settings.lake)
        for spec in TABLES:
            lake.ensure(spec)
        sources = Sources(database)
        tail = Tail(settings, sources)
        # Threads have the priority of the one that starts them.
        tail.start()
        if alone:
            step_back_thread(BEHIND)
            # The code that is loaded is no garbage, and need not be looked through.
            gc.freeze()
        shapes = Shapes(database, seconds=settings.registry_refresh_seconds)
        engine = Engine(settings, lake, shapes.of)
        app.state.tail = tail
        app.state.sources = sources
        app.state.engine = engine
        app.state.readers = Readers(settings, settings.query_threads)
        app.state.search = Search(settings, lake, engine)
        app.state.monitoring = monitoring.Monitoring(engine, sources)
        app.state.lake_uri = lake.uri
        app.state.metrics = Metrics(database)
        app.state.tokens = TokenRing(Tokens(database), seconds=settings.registry_refresh_seconds)
        app.state.retention = Retention(database)
        app.state.retention_run = RetentionRun(settings, app.state.retention)
        app.state.turns = Turns(
            running=settings.query_concurrency,
            per_tenant=settings.query_tenant_concurrency,
            seconds=settings.query_wait_seconds,
        )
        app.state.sql_turns = Turns(
            running=settings.sql_concurrency,
            per_tenant=settings.sql_tenant_concurrency,
            seconds=settings.query_wait_seconds,
            kind="SQL",
        )
        app.state.reports = Reports(database)
        app.state.past = Past(lake, app.state.retention)
        engine.start()
        app.state.readers.start()
        try:
            yield
        finally:
            try:
                await app.state.readers.close()
            finally:
                tail.stop()
                app.state.search.close()
                engine.close()
                database.close()

    app = FastAPI(
        title="Data collection: queries",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    add_routes(app)

    @app.get("/healthz")
    def healthz(response: Response) -> dict[str, Any]:
        """Whether this process can answer completely; 503 while it cannot."""
        tail: Tail = app.state.tail
        caches = (app.state.engine.answers, app.state.readers.figures)
        complete = tail.view is not None and tail.view.complete
        response.status_code = 200 if complete else 503
        return {
            "complete": complete,
            "silverVersion": tail.view.silver.version if tail.view else None,
            "tailRows": tail.view.tail_rows if tail.view else 0,
            "cache": {
                "hits": sum(cache.hits for cache in caches),
                "misses": sum(cache.misses for cache in caches),
                "bytes": sum(cache.size_bytes for cache in caches),
            },
        }

    return app
