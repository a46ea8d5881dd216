"""The gateway's process: wiring, health, orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from dc_platform import __version__
from dc_platform.broker.client import describe_topic, ensure_topic
from dc_platform.broker.producer import BlockProducer
from dc_platform.contracts.schema import SchemaConflictError, SchemaError
from dc_platform.errors import BrokerUnavailableError, StoreUnavailableError
from dc_platform.gateway import admin, admin_retention, admin_schemas, metrics_admin, routes
from dc_platform.gateway.acks import Acks
from dc_platform.gateway.activity import ActivityLog
from dc_platform.gateway.auth import KeyRing
from dc_platform.gateway.batcher import Batcher
from dc_platform.gateway.floors import FloorWatch
from dc_platform.gateway.ingest import Ingest, IngestLimits, clock_ms
from dc_platform.gateway.journal import Journal
from dc_platform.gateway.pressure import Circuit, EventQueue
from dc_platform.gateway.rules import RuleBook
from dc_platform.gateway.sampling import Sampler
from dc_platform.points import armed
from dc_platform.registry.access import BodyDoor, TokenRing
from dc_platform.registry.database import Database
from dc_platform.registry.metrics import Metrics
from dc_platform.registry.retention import Retention
from dc_platform.registry.schemas import Schemas
from dc_platform.registry.sources import Sources
from dc_platform.registry.tokens import Tokens
from dc_platform.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The gateway as an ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.registry)
        sources = Sources(database)
        reached = armed(settings.crash_at)
        producer = BlockProducer(settings.kafka_bootstrap, settings.topic, reached=reached)
        rules, sampler = RuleBook(sources), Sampler()
        keys = KeyRing(
            sources,
            refresh_seconds=settings.registry_refresh_seconds,
            rules=rules,
            sampler=sampler,
        )
        activity = ActivityLog(sources)
        circuit = Circuit(
            failures=settings.breaker_failures,
            seconds=settings.breaker_seconds,
            probe=producer.probe,
        )
        queue = EventQueue(
            limit=settings.queue_events,
            slowdown=settings.queue_slowdown,
            slow_rate=settings.queue_slow_rate,
            patience=settings.ack_timeout_seconds,
        )
        boot_id = secrets.token_hex(6)
        shipper = BlockProducer(settings.kafka_bootstrap, settings.acks_topic)
        journal = Journal(
            settings.data_dir / "gateway" / quote(settings.gateway_id, safe=""), boot_id
        )
        acks = Acks(journal, shipper, gateway_id=settings.gateway_id, clock=clock_ms)
        batcher = Batcher(
            producer,
            gateway_id=settings.gateway_id,
            boot_id=boot_id,
            batch_events=settings.batch_events,
            batch_wait_ms=settings.batch_wait_ms,
            reached=reached,
            acknowledged=acks.saw,
            sampling=sampler.rates,
        )
        limits = IngestLimits(
            settings.future_limit_ms, settings.max_event_bytes, settings.ack_timeout_seconds
        )
        floors = FloorWatch(Retention(database), refresh_seconds=settings.registry_refresh_seconds)
        ingest = Ingest(
            batcher,
            queue,
            circuit,
            activity,
            limits,
            rules=rules,
            floors=floors,
            reached=reached,
        )
        app.state.doors = routes.Doors(settings, keys, ingest)
        app.state.sources = sources
        app.state.schemas = Schemas(database)
        app.state.metrics = Metrics(database)
        app.state.tokens = TokenRing(Tokens(database), seconds=settings.registry_refresh_seconds)
        app.state.health = lambda: _health(producer, circuit, queue, activity, journal)
        await asyncio.to_thread(keys.refresh)
        await asyncio.to_thread(floors.refresh)
        tasks = [
            asyncio.create_task(_open_topics(settings, producer, shipper, acks)),
            asyncio.create_task(acks.follow()),
            asyncio.create_task(keys.follow()),
            asyncio.create_task(floors.follow()),
            asyncio.create_task(activity.follow()),
            asyncio.create_task(rules.follow()),
            asyncio.create_task(circuit.watch()),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*tasks, return_exceptions=True)
            await producer.stop()
            await acks.stop()
            await shipper.stop()
            database.close()

    app = FastAPI(
        title="Data collection gateway",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(routes.router)
    app.include_router(admin.router)
    app.include_router(admin_retention.router)
    app.include_router(admin_schemas.router)
    app.include_router(metrics_admin.router)
    # Events have a limit and keys of their own.
    app.add_middleware(BodyDoor, prefix=admin.router.prefix)
    app.add_exception_handler(RequestValidationError, admin.invalid)
    app.add_exception_handler(StoreUnavailableError, admin.unavailable)
    app.add_exception_handler(SchemaError, admin_schemas.refused)
    app.add_exception_handler(SchemaConflictError, admin_schemas.refused)

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """Whether this gateway can take events."""
        health: dict[str, Any] = app.state.health()
        return health

    return app


# A look costs the broker two requests; while it fails shipping is tried each second.
_CREATE_SECONDS = 10.0


async def _open_topics(
    settings: Settings, producer: BlockProducer, shipper: BlockProducer, acks: Acks
) -> None:
    """Create the topics when they are missing, then connect; a broker that is away is waited for.
    Afterwards the topic's id is asked for again and again, and the topic of the acknowledgements is
    created again when it may be gone.
    """
    acks.topic_id = await _topic_id(settings, settings.topic, settings.topic_partitions)
    await producer.start()
    await _topic_id(settings, settings.acks_topic, 1)
    await shipper.start()

    async def create_again() -> None:
        while True:
            await acks.not_taken.wait()
            acks.not_taken.clear()
            await _topic_id(settings, settings.acks_topic, 1)
            await asyncio.sleep(_CREATE_SECONDS)

    await asyncio.gather(acks.watch_topic(lambda: _topic_id_now(settings)), create_again())


async def _topic_id_now(settings: Settings) -> str:
    """Empty when Kafka does not say. A topic that somebody deletes is not created again here."""
    try:
        info = await asyncio.to_thread(describe_topic, settings.kafka_bootstrap, settings.topic)
    except BrokerUnavailableError:
        return ""
    return info.topic_id if info else ""


async def _topic_id(settings: Settings, topic: str, partitions: int) -> str:
    while True:
        try:
            info = await asyncio.to_thread(
                ensure_topic,
                settings.kafka_bootstrap,
                topic,
                partitions=partitions,
                replication=settings.topic_replication,
            )
        except BrokerUnavailableError:
            await asyncio.sleep(1.0)
            continue
        return info.topic_id


def _health(
    producer: BlockProducer,
    circuit: Circuit,
    queue: EventQueue,
    activity: ActivityLog,
    journal: Journal,
) -> dict[str, Any]:
    ready = producer.connected and circuit.state != "open"
    return {
        "status": "healthy" if ready else "unhealthy",
        "kafka": {"connected": producer.connected, "circuit": circuit.state},
        "queue": {"events": queue.waiting},
        "accepted": activity.accepted,
        "rejected": activity.rejected,
        "journal": {"lost": journal.lost},
    }
