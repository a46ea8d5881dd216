"""Every request is sent again: at once, to a gateway that was killed and started again, an hour
later, a day later. With ids, with an Idempotency-Key, with and without timestamps. Each event is in
the union once at every moment, and in silver once at the end.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.settings import Settings
from dc_platform_tests.e2e.parts import clock_later, http_part, kafka, land

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

EVENTS_PER_REQUEST = 20
REQUESTS_PER_KIND = 4


class Request(NamedTuple):
    """One request, as often as it is sent."""

    name: str
    headers: dict[str, str]
    body: dict[str, Any]


class Scene(NamedTuple):
    """The parts that do not change."""

    environment: dict[str, str]
    directory: Path
    key: str
    token: str
    serving: str


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with kafka(tmp_path / "kafka") as broker:
        environment = {
            "DCP_DATA_DIR": str(tmp_path / "data"),
            "DCP_KAFKA_BOOTSTRAP": broker.bootstrap,
            "DCP_TOPIC": "retries",
        }
        registry = Settings(data_dir=tmp_path / "data").registry
        migrate(registry)
        database = Database(registry)
        _source, key = Sources(database).create("retrier", SourceType.APPLICATION)
        token = Tokens(database).create(Scope.QUERY)
        with http_part("dc_platform.serving", environment, log=tmp_path / "serving.log") as serving:
            yield Scene(environment, tmp_path, key, token, serving)


def requests() -> list[Request]:
    """Requests of all kinds that promise that a retry is safe."""
    # Close to a full hour, so that an hour border lies between the events of one request.
    hour = (time.time_ns() // 1_000_000 // 3_600_000) * 3_600_000
    made = []
    for kind in ("uuid", "text", "key"):
        for timed in (True, False):
            for number in range(REQUESTS_PER_KIND):
                name = f"{kind}-{'timed' if timed else 'untimed'}-{number}"
                events = []
                for i in range(EVENTS_PER_REQUEST):
                    event: dict[str, Any] = {"eventType": "r", "payload": {"name": f"{name}-{i}"}}
                    if timed:
                        event["timestamp"] = hour - EVENTS_PER_REQUEST // 2 + i
                    if kind == "uuid":
                        event["eventId"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name}-{i}"))
                    elif kind == "text":
                        event["eventId"] = f"{name}/{i}"
                    events.append(event)
                headers = {"Idempotency-Key": f"request {name}"} if kind == "key" else {}
                made.append(Request(name, headers, {"events": events}))
    return made


class UnionReader(threading.Thread):
    """Counts each event in the union again and again."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(daemon=True)
        self._scene = scene
        self._ended = threading.Event()
        self.answers = 0
        self.most = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                self.most = max(self.most, *names(self._scene, "events").values(), 0)
                self.answers += 1
                time.sleep(0.005)
        except Exception as error:
            self.error = error

    def end(self) -> None:
        self._ended.set()
        self.join(timeout=60)
        assert self.error is None, self.error


def names(scene: Scene, table: str) -> Counter[str]:
    """How often each event is in a table."""
    answer = httpx.post(
        f"{scene.serving}/api/v1/sql",
        json={"sql": f"select payload->>'name' as name, count(*) as n from {table} group by 1"},
        headers={"Authorization": f"Bearer {scene.token}"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return Counter({row["name"]: row["n"] for row in answer.json()})


def hours_ahead(scene: Scene) -> tuple[float, float]:
    """How far the latest times in bronze are ahead of the true time, in hours."""
    sql = "select max(epoch_ms(received_at)) as r, max(epoch_ms(processed_at)) as p"
    answer = httpx.post(
        f"{scene.serving}/api/v1/sql",
        json={"sql": f"{sql} from bronze.events"},
        headers={"Authorization": f"Bearer {scene.token}"},
        timeout=30,
    )
    row = answer.json()[0]
    now = time.time() * 1000
    return (row["r"] - now) / 3_600_000, (row["p"] - now) / 3_600_000


def send_all(scene: Scene, gateway: str, sent: list[Request]) -> None:
    with httpx.Client(headers={"X-API-Key": scene.key}, timeout=30) as client:
        for request in sent:
            answer = client.post(
                f"{gateway}/api/v1/events", json=request.body, headers=request.headers
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["accepted"] == EVENTS_PER_REQUEST


def test_a_request_that_is_sent_again_adds_nothing_for_ever(scene: Scene) -> None:
    all_requests = requests()
    expected = Counter(
        {event["payload"]["name"]: 1 for r in all_requests for event in r.body["events"]}
    )
    reader = UnionReader(scene)
    reader.start()
    for hours, landing in ((0, True), (0, False), (1, True), (25, False), (25, True)):
        # Each turn is a gateway that was killed before, on another hour and on another day.
        environment = scene.environment | clock_later(hours)
        log = scene.directory / f"gateway-{hours}.log"
        with http_part("dc_platform.gateway", environment, log=log) as gateway:
            send_all(scene, gateway, all_requests)
            send_all(scene, gateway, all_requests)
        if landing:
            land(environment)
            assert names(scene, "silver.events") == expected
        _wait_until_seen(scene, expected)
    time.sleep(1)
    reader.end()
    assert names(scene, "events") == expected
    assert names(scene, "silver.events") == expected
    assert reader.most == 1
    # The clocks were really moved: gateway and landing of tomorrow left their marks in bronze.
    received, processed = hours_ahead(scene)
    assert received > 24
    assert processed > 24
    assert reader.answers > 100


def _wait_until_seen(scene: Scene, expected: Counter[str]) -> None:
    deadline = time.monotonic() + 30
    while names(scene, "events") != expected:
        assert time.monotonic() < deadline, "the union lacks events"
        time.sleep(0.05)
