"""Quarantined events repaired and replayed, on real parts: each lands once, and the ledger balances.

`make test-lakehouse` does it with 10,000 events.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from typer.testing import CliRunner

from dc_platform.cli.main import app
from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    REPLAYS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TableSpec,
)
from dc_platform.lake import audit
from dc_platform.lake.replays import days_of
from dc_platform.lake.store import Lake
from dc_platform.landing.lander import Ended, Lander
from dc_platform.landing.replay import Replay, Replayed, replay_day, tenants_now
from dc_platform.points import Point, Reached, unarmed
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.settings import Settings
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.e2e.parts import http_part
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import CrashError, crash_at

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

REPAIR = {"eventType": "order", "payload": {"wrong": None}}
PER_REQUEST = 500


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
        tenants = tenants_now(self.sources)
        return replay_day(self.settings, self.lake, day, how, tenant_of=tenants, reached=reached)

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


@pytest.fixture
def scene(kafka: LocalKafka, tmp_path: Path) -> Iterator[Scene]:
    environment = {
        "DCP_DATA_DIR": str(tmp_path / "data"),
        "DCP_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "DCP_TOPIC": f"replay-{uuid.uuid4().hex[:8]}",
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


def wrong(number: int, **more: Any) -> dict[str, Any]:
    """An event whose type is a number, as a release of a client sent it."""
    return {"eventType": 7, "eventId": f"e{number}", "payload": {"n": number, "wrong": 1}, **more}


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.lakehouse)])
def test_repaired_and_replayed_twice_they_land_once_and_the_ledger_balances(
    scene: Scene, count: int
) -> None:
    for first in range(0, count, PER_REQUEST):
        numbers = range(first, min(first + PER_REQUEST, count))
        assert scene.post([wrong(n) for n in numbers])["rejected"] == len(numbers)
    scene.post([{"eventType": "order", "eventId": "good", "payload": {}}])
    scene.land()
    assert scene.ids() == {"good": 1}

    asked = scene.replay(patch=REPAIR, dry_run=True)
    assert (asked.rows, asked.replayed, asked.known, asked.rejected) == (count, count, 0, 0)
    assert not read_table(scene.lake, REPLAYS)
    # Without the repair they are still what they were.
    as_it_is = scene.replay(dry_run=True)
    assert as_it_is.still == {"wrong_type": count}

    # Killed when Kafka has them and nobody knows; the next one sends them again.
    with pytest.raises(CrashError):
        scene.replay(patch=REPAIR, reached=crash_at(Point.REPLAY_ACKED))
    done = scene.replay(patch=REPAIR)
    assert (done.rows, done.replayed, done.rejected) == (count, count, 0)
    scene.land()
    # And a second time, with nothing left to do.
    again = scene.replay(patch=REPAIR)
    assert (again.rows, again.replayed, again.known, again.rejected) == (0, 0, 0, 0)
    scene.land()

    assert scene.ids() == {"good": 1, **{f"e{n}": 1 for n in range(count)}}
    assert len(read_table(scene.lake, SILVER_QUARANTINE)) == count
    rows = read_table(scene.lake, SILVER_EVENTS, "client_event_id, event_type, payload")
    assert ("e17", "order", '{"n":17}') in rows
    totals = scene.assert_balanced()
    resent = totals["duplicates"]
    assert resent > 0
    assert totals["rejected"] == count
    assert totals["landed"] == count + 1
    assert totals["missing"] == 0
    assert totals["received"] == 2 * count + 1 + resent
    assert len(read_table(scene.lake, BRONZE_EVENTS)) == totals["received"]
    received = [_first(scene.lake, t) for t in (SILVER_EVENTS, BRONZE_EVENTS)]
    assert received[0] == received[1]


def _first(lake: Lake, spec: TableSpec) -> Any:
    return min(row[0] for row in read_table(lake, spec, "received_at"))
