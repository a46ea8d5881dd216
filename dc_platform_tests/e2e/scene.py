"""A real gateway, a topic, and the lake that it lands in; without a supervisor and without Dagster."""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from typer.testing import CliRunner

from dc_platform.cli.main import app
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake import audit
from dc_platform.lake.replays import days_of
from dc_platform.lake.store import Lake
from dc_platform.landing.lander import Ended, Lander
from dc_platform.landing.replay import Replay, Replayed, replay_day, today
from dc_platform.points import Reached, unarmed
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.settings import Settings
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.e2e.parts import http_part
from dc_platform_tests.helpers.lake import read_table


class Scene(NamedTuple):
    """A topic, its lake, a gateway, a source."""

    settings: Settings
    environment: dict[str, str]
    lake: Lake
    sources: Sources
    url: str
    source_id: str
    key: str

    def post(self, events: list[Any]) -> dict[str, Any]:
        """Send events; gives the answer."""
        return self.post_bytes(json.dumps({"events": events}).encode())

    def post_bytes(self, body: bytes) -> dict[str, Any]:
        """Send a body; gives the answer."""
        answer = httpx.post(
            f"{self.url}/api/v1/events", content=body, headers={"X-API-Key": self.key}, timeout=60
        )
        content: dict[str, Any] = answer.json()
        return content

    def land(self) -> None:
        """Land all that Kafka has."""
        lander = Lander(self.settings, sources=self.sources, owner="test")
        assert lander.run(threading.Event(), until_caught_up=True) is Ended.CAUGHT_UP

    def replay(self, *, reached: Reached = unarmed, **how: Any) -> Replayed:
        """Replay all days."""
        done = Replayed()
        for day in days_of(self.lake):
            done.add(self.replay_day(day, Replay("test", **how), reached))
        return done

    def replay_day(self, day: date, how: Replay, reached: Reached) -> Replayed:
        """Replay one."""
        tenants = today(self.sources)
        return replay_day(self.settings, self.lake, day, how, now=tenants, reached=reached)

    def ids(self) -> Counter[str]:
        """Client's ids in silver."""
        rows = read_table(self.lake, SILVER_EVENTS, "coalesce(client_event_id, event_id)")
        return Counter(row[0] for row in rows)

    def assert_balanced(self) -> dict[str, int]:
        """The ledger, and all promises that the tables can be asked about."""
        done = CliRunner().invoke(app, ["audit", "--json"], env=self.environment)
        answer = json.loads(done.stdout)
        assert done.exit_code == 0, answer["unbalanced"]
        assert audit.lost_events(self.lake, date(2020, 1, 1)).number == 0
        totals: dict[str, int] = answer["totals"]
        return totals


@contextmanager
def opened(kafka: LocalKafka, tmp_path: Path) -> Iterator[Scene]:
    """A scene of its own on the broker."""
    environment = {
        "DCP_DATA_DIR": str(tmp_path / "data"),
        "DCP_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "DCP_TOPIC": f"scene-{uuid.uuid4().hex[:8]}",
    }
    settings = Settings(
        data_dir=tmp_path / "data", kafka_bootstrap=kafka.bootstrap, topic=environment["DCP_TOPIC"]
    )
    migrate(settings.registry)
    database = Database(settings.registry)
    source, key = Sources(database).create("shop", SourceType.SERVER)
    with http_part("dc_platform.gateway", environment, log=tmp_path / "gateway.log") as url:
        yield Scene(
            settings,
            environment,
            Lake(settings.lake),
            Sources(database),
            url,
            source.source_id,
            key,
        )
    database.close()
