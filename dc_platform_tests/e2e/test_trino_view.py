"""The union in Trino, over the landing border: at rest it equals DuckDB's; in motion it never counts
an event twice and never loses one that it had.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from dc_platform.broker.client import describe_topic
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.serving.trino_view import union_sql
from dc_platform.settings import Settings
from dc_platform.stack import ports
from dc_platform.stack.trino import LocalTrino
from dc_platform_tests.e2e.parts import http_part, kafka, land

pytestmark = [pytest.mark.trino, pytest.mark.slow, pytest.mark.timeout(600)]

TOPIC = "trino-union"
# Flags some events, beside those that are late.
SCHEMA = {
    "fields": [{"name": "n", "type": "NUMBER"}],
    "validations": [
        {"field": "n", "rule": "range", "min": 5, "action": "WARN"},
        {"field": "n", "rule": "expected", "min": 3, "max": 30},
    ],
}


class Scene(NamedTuple):
    """What the test drives."""

    environment: dict[str, str]
    key: str
    token: str
    gateway: str
    serving: str
    trino: LocalTrino
    union: str


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with kafka(tmp_path / "kafka") as broker:
        environment = {
            "DCP_DATA_DIR": str(tmp_path / "data"),
            "DCP_KAFKA_BOOTSTRAP": broker.bootstrap,
            "DCP_TOPIC": TOPIC,
        }
        settings = Settings(data_dir=tmp_path / "data")
        migrate(settings.registry)
        database = Database(settings.registry)
        _source, key = Sources(database).create("trino", SourceType.SERVER, schema=SCHEMA)
        token = Tokens(database).create(Scope.QUERY)
        gateway_part = http_part("dc_platform.gateway", environment, log=tmp_path / "gateway.log")
        serving_part = http_part("dc_platform.serving", environment, log=tmp_path / "serving.log")
        with gateway_part as gateway, serving_part as serving:
            port = ports.choose(needed=("trino",), remembered={}, auto=True)["trino"]
            trino = LocalTrino(
                tmp_path / "trino",
                port,
                lake=settings.lake,
                bootstrap=broker.bootstrap,
                topic=TOPIC,
                memory_mb=2048,
            )
            with trino:
                info = describe_topic(broker.bootstrap, TOPIC)
                assert info is not None
                union = union_sql(info.topic_id, f"kafka.default.{trino.topic_table}")
                yield Scene(environment, key, token, gateway, serving, trino, union)


def events_of(ids: list[str], *, timed: bool) -> list[dict[str, Any]]:
    """Events with these ids; a retry sends the very same ones."""
    now = int(time.time() * 1000)
    events = []
    for number, event_id in enumerate(ids):
        event: dict[str, Any] = {
            "eventId": event_id,
            "eventType": "t",
            "payload": {"n": number, "text": 'a ,"payload":{ in a string', "price": 1.50},
        }
        if timed:
            event["timestamp"] = now - 3_600_000 + number
        events.append(event)
    return events


def send(scene: Scene, events: list[dict[str, Any]]) -> None:
    answer = httpx.post(
        f"{scene.gateway}/api/v1/events",
        json={"events": events},
        headers={"X-API-Key": scene.key},
        timeout=30,
    )
    assert answer.json()["accepted"] == len(events), answer.text


_ROW = (
    "tenant_id, source_id, event_id, client_event_id, event_type, payload, schema_version,"
    " dedup_scope, topic_id, kafka_partition, kafka_offset, kafka_index, judged_by"
)


def in_duckdb(scene: Scene) -> list[tuple[Any, ...]]:
    answer = httpx.post(
        f"{scene.serving}/api/v1/sql",
        json={
            "sql": f"select {_ROW}, array_to_string(flags, ' '), epoch_ms(event_time),"
            " epoch_ms(received_at) from events"
        },
        headers={"Authorization": f"Bearer {scene.token}"},
        timeout=30,
    )
    return sorted((tuple(row.values()) for row in answer.json()), key=repr)


def in_trino(scene: Scene) -> list[tuple[Any, ...]]:
    rows = scene.trino.query(
        f"SELECT {_ROW}, array_join(flags, ' '), to_milliseconds(event_time - from_unixtime(0)),"
        f" to_milliseconds(received_at - from_unixtime(0)) FROM ({scene.union})"
    )
    return sorted((tuple(row) for row in rows), key=repr)


def test_trino_sees_each_event_once_at_rest_and_in_motion(scene: Scene) -> None:
    first = events_of([str(uuid.uuid4()) for _ in range(50)], timed=True)
    second = events_of([f"text {i}" for i in range(50)], timed=False)
    send(scene, first)
    send(scene, second)
    wait_until_seen(scene, 100)
    # Nothing has landed: everything comes from Kafka.
    assert in_trino(scene) == in_duckdb(scene)
    flags = {row[13] for row in in_duckdb(scene)}
    assert flags >= {None, "anomaly:n", "warn:n:range", "warn:n:range anomaly:n"}
    assert any(flag is not None and flag.startswith("late ") for flag in flags)
    land(scene.environment)
    # Everything has landed; then duplicates of landed events wait in the tail, beside new ones.
    send(scene, first)
    send(scene, second)
    send(scene, events_of([str(uuid.uuid4()) for _ in range(30)], timed=True))
    wait_until_seen(scene, 130)
    assert len(in_trino(scene)) == 130
    assert in_trino(scene) == in_duckdb(scene)
    in_motion(scene)
    land(scene.environment)
    wait_until_seen(scene, len(in_duckdb(scene)))
    assert in_trino(scene) == in_duckdb(scene)


def in_motion(scene: Scene) -> None:
    """While events come, are repeated and land, counts in Trino never double and never fall."""
    ended = threading.Event()
    sent: list[list[dict[str, Any]]] = []

    def feed() -> None:
        while not ended.is_set():
            timed = len(sent) % 2 == 0
            sent.append(events_of([str(uuid.uuid4()) for _ in range(20)], timed=timed))
            send(scene, sent[-1])
            send(scene, sent[len(sent) // 2])
            send(scene, sent[-min(3, len(sent))])
            time.sleep(0.05)

    def lands() -> None:
        while not ended.is_set():
            land(scene.environment)

    threads = [threading.Thread(target=feed), threading.Thread(target=lands)]
    for thread in threads:
        thread.start()
    seen = []
    try:
        for _ in range(15):
            counted = scene.trino.query(
                f"SELECT count(*), count(DISTINCT event_id) FROM ({scene.union})"
            )[0]
            seen.append(counted)
    finally:
        ended.set()
        for thread in threads:
            thread.join(timeout=120)
    assert all(n == distinct for n, distinct in seen), seen
    assert [n for n, _ in seen] == sorted(n for n, _ in seen), seen
    assert seen[-1][0] > seen[0][0], "nothing moved"


def wait_until_seen(scene: Scene, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(in_duckdb(scene)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.1)
