"""The ledger on real parts: a gateway that is killed amid its acknowledgements, a row that somebody
deletes from silver, a block that Kafka deletes before it lands.

`make test-ledger` does it with more kills and a million events (LEDGER_EVENTS).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from deltalake import DeltaTable
from kafka import KafkaAdminClient, TopicPartition
from typer.testing import CliRunner

from dc_platform.broker.client import RecordWriter, describe_topic
from dc_platform.broker.reader import reader_for
from dc_platform.cli.main import app
from dc_platform.contracts.ops_tables import ACKS
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.landing.acks import AcksLanded, land_acks
from dc_platform.landing.lander import Ended, Lander
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.settings import Settings
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.e2e.parts import http_part
from dc_platform_tests.helpers.lake import read_table

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

EVENTS = int(os.environ.get("LEDGER_EVENTS", "100000"))
KILLS = 1 if EVENTS <= 100_000 else 5
PER_REQUEST = 5_000
# Events that a gateway acknowledges before it is killed.
PER_START = 500


class Scene(NamedTuple):
    """A topic, its lake, two sources."""

    environment: dict[str, str]
    directory: Path
    settings: Settings
    lake: Lake
    sources: dict[str, str]

    def land(self) -> None:
        """`dcp land --until-caught-up`."""
        sources = Sources(Database(self.settings.registry))
        lander = Lander(self.settings, sources=sources, owner="test")
        assert lander.run(threading.Event(), until_caught_up=True) is Ended.CAUGHT_UP

    def audit(self) -> tuple[int, dict[str, Any]]:
        """`dcp audit --json`: its exit code and its answer."""
        done = CliRunner().invoke(app, ["audit", "--json"], env=self.environment)
        return done.exit_code, json.loads(done.stdout)


@pytest.fixture
def scene(kafka: LocalKafka, tmp_path: Path) -> Iterator[Scene]:
    environment = {
        "DCP_DATA_DIR": str(tmp_path / "data"),
        "DCP_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "DCP_TOPIC": f"ledger-{uuid.uuid4().hex[:8]}",
    }
    settings = Settings(
        data_dir=tmp_path / "data", kafka_bootstrap=kafka.bootstrap, topic=environment["DCP_TOPIC"]
    )
    migrate(settings.registry)
    database = Database(settings.registry)
    made = [Sources(database).create(name, SourceType.SERVER) for name in ("first", "second")]
    keys = {source.source_id: key for source, key in made}
    yield Scene(environment, tmp_path, settings, Lake(settings.lake), keys)
    database.close()


def gateway(scene: Scene, name: str = "gateway") -> Any:
    log = scene.directory / f"{name}.log"
    return http_part("dc_platform.gateway", scene.environment, log=log)


def send(url: str, key: str, ids: list[str]) -> None:
    events = "\n".join(f'{{"eventId":"{i}","eventType":"l","payload":{{"n":1}}}}' for i in ids)
    answer = httpx.post(
        f"{url}/api/v1/events/batch",
        content=events,
        headers={"X-API-Key": key, "Content-Type": "application/x-ndjson"},
        timeout=60,
    )
    assert answer.json()["accepted"] == len(ids), answer.text


def new_ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


# --- a gateway is killed ---


def pid_of(url: str) -> int:
    """The process that listens there."""
    port = int(url.rsplit(":", 1)[1])
    (found,) = {
        c.pid
        for c in psutil.net_connections("tcp")
        if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN and c.pid
    }
    return found


class Client(threading.Thread):
    """Sends small requests until nobody answers; `acknowledged` are events that a 200 covered."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(daemon=True)
        self._url, self._key = url, key
        self.acknowledged: list[str] = []

    def run(self) -> None:
        headers = {"X-API-Key": self._key}
        with httpx.Client(headers=headers, timeout=10) as client:
            while True:
                ids = new_ids(3)
                events = [{"eventId": i, "eventType": "l", "payload": {}} for i in ids]
                try:
                    answer = client.post(f"{self._url}/api/v1/events", json={"events": events})
                except httpx.HTTPError:
                    return
                if answer.status_code == 200:
                    self.acknowledged += ids


def kill_with_lines(pid: int, journal: Path) -> None:
    """SIGKILL, at a moment when there are lines that were not shipped."""
    deadline = time.monotonic() + 60
    while True:
        os.kill(pid, signal.SIGSTOP)
        if any(path.stat().st_size for path in journal.glob("*.ndjson")):
            os.kill(pid, signal.SIGKILL)
            return
        os.kill(pid, signal.SIGCONT)
        assert time.monotonic() < deadline, "no line is ever on disk"
        time.sleep(0.05)


def test_what_a_killed_gateway_acknowledged_is_in_the_ledger(scene: Scene) -> None:
    acknowledged: list[str] = []
    journal = scene.directory / "data" / "gateway" / "gateway-1"
    for start in range(KILLS):
        with gateway(scene, f"killed-{start}") as url:
            clients = [Client(url, key) for key in scene.sources.values() for _ in range(4)]
            for client in clients:
                client.start()
            deadline = time.monotonic() + 120
            while sum(len(client.acknowledged) for client in clients) < PER_START:
                assert time.monotonic() < deadline, "the gateway takes nothing"
                time.sleep(0.05)
            kill_with_lines(pid_of(url), journal)
            for client in clients:
                client.join(timeout=30)
                acknowledged += client.acknowledged
    with gateway(scene, "after"):
        deadline = time.monotonic() + 30
        while list(journal.glob("*.ndjson")):
            assert time.monotonic() < deadline, "what was left is not shipped"
            time.sleep(0.1)
    scene.land()
    code, found = scene.audit()
    assert (code, found["balanced"]) == (0, True), found
    told = blocks_told(scene)
    where = blocks_of_events(scene, set(acknowledged))
    assert set(where) == set(acknowledged), "lost"
    assert set(where.values()) <= told, "acknowledged to a client, and not written down"
    assert found["totals"]["received"] >= len(acknowledged)
    assert found["totals"]["missing"] == found["totals"]["in_flight"] == 0
    # Once more: each acknowledgement is landed once.
    assert land_acks(scene.settings, scene.lake) == AcksLanded()
    ship_again(scene)
    assert land_acks(scene.settings, scene.lake).rows == 0
    assert (
        Counter(read_table(scene.lake, ACKS, "block_id, source_id, hour")).most_common(1)[0][1] == 1
    )


def test_a_gateway_makes_the_acks_topic_anew(scene: Scene) -> None:
    bootstrap, topic = scene.settings.kafka_bootstrap, scene.settings.acks_topic
    ((_, key), _) = scene.sources.items()
    with gateway(scene) as url:
        send(url, key, new_ids(10))
        time.sleep(2)  # the journal is shipped each second
        scene.land()
        assert scene.audit()[1]["cannotTell"] == []
        before = describe_topic(bootstrap, topic)
        assert before is not None
        admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        admin.delete_topics([topic])
        admin.close()
        assert "is gone" in scene.audit()[1]["cannotTell"][0]
        deadline = time.monotonic() + 60
        while (now := describe_topic(bootstrap, topic)) is None:
            send(url, key, new_ids(10))
            assert time.monotonic() < deadline, "the topic stays away"
            time.sleep(1)
        assert now.topic_id != before.topic_id
        journal = scene.directory / "data" / "gateway" / "gateway-1"
        while any(path.stat().st_size for path in journal.glob("*.ndjson")):
            assert time.monotonic() < deadline, "what waits is not shipped"
            time.sleep(0.1)
    scene.land()
    code, found = scene.audit()
    assert (code, found["cannotTell"]) == (0, [])
    assert blocks_told(scene) == set(blocks_of_all(scene))


def blocks_of_all(scene: Scene) -> set[str]:
    return {row[0] for row in read_table(scene.lake, BRONZE_EVENTS, "block_id")}


def blocks_told(scene: Scene) -> set[str]:
    return {row[0] for row in read_table(scene.lake, ACKS, "block_id")}


def blocks_of_events(scene: Scene, ids: set[str]) -> dict[str, str]:
    rows = read_table(scene.lake, BRONZE_EVENTS, "event_id, block_id")
    return {event: block for event, block in rows if event in ids}


def ship_again(scene: Scene) -> None:
    """Every record of the acks topic once more, as a gateway does that crashed before it forgot."""
    info = describe_topic(scene.settings.kafka_bootstrap, scene.settings.acks_topic)
    assert info is not None
    reader = reader_for(scene.settings.kafka_bootstrap, info)
    writer = RecordWriter(scene.settings.kafka_bootstrap, info.name)
    reader.assign({0: 0})
    end = reader.end_offsets()[0]
    records = []
    while len(records) < end:
        records += reader.poll(500).records
    for record in [*records, records[0]._replace(value=b"no line\n")]:
        writer.write(record.value, partition=0)
    writer.flush()
    writer.close()
    reader.close()


# --- a row and a block are taken away ---


def test_one_row_and_one_block_among_many_events_are_named(scene: Scene) -> None:
    (first, first_key), (second, second_key) = scene.sources.items()
    half = EVENTS // 2 // PER_REQUEST
    with gateway(scene) as url:
        for _ in range(half):
            send(url, first_key, new_ids(PER_REQUEST))
        # Duplicates and rejects are no loss.
        twice = new_ids(200)
        for _ in range(2):
            send(url, second_key, twice)
        rejected = httpx.post(
            f"{url}/api/v1/events",
            json={"events": [{"nonsense": True}]},
            headers={"X-API-Key": second_key},
            timeout=30,
        )
        assert rejected.json()["rejected"] == 1
        scene.land()
        victim = twice[77]
        code, before = scene.audit()
        assert (code, before["totals"]["missing"]) == (0, 0)
        deleted = delete_newest_block(scene, url, second_key)
        for _ in range(half):
            send(url, first_key, new_ids(PER_REQUEST))
        time.sleep(2)  # the journal is shipped each second
    scene.land()
    removed = DeltaTable(scene.lake.uri_of(SILVER_EVENTS)).delete(f"event_id = '{victim}'")
    assert removed["num_deleted_rows"] == 1
    code, found = scene.audit()
    assert (code, found["balanced"]) == (1, False)
    assert found["totals"]["received"] == 2 * half * PER_REQUEST + 401 + deleted.events
    assert (found["totals"]["missing"], found["totals"]["gap"]) == (1, deleted.events)
    assert {row["source_id"] for row in found["unbalanced"]} == {second}
    hours = {row["hour"] for row in found["unbalanced"]}
    assert hours <= {hour_text(0), hour_text(-1)}
    examples = [e for row in found["unbalanced"] for e in row["examples"]]
    assert {e["event"] for e in examples if e["event"]} == {victim}
    assert {(e["partition"], e["offset"], e["events"]) for e in examples if e["block"]} == {
        (deleted.partition, deleted.offset, deleted.events)
    }
    assert first not in {row["source_id"] for row in found["unbalanced"]}


class Deleted(NamedTuple):
    """A block that is no longer in Kafka."""

    partition: int
    offset: int
    events: int


def delete_newest_block(scene: Scene, url: str, key: str) -> Deleted:
    """Send one block, and let Kafka delete it before it lands."""
    info = describe_topic(scene.settings.kafka_bootstrap, scene.settings.topic)
    assert info is not None
    reader = reader_for(scene.settings.kafka_bootstrap, info)
    ends = reader.end_offsets()
    send(url, key, new_ids(300))
    (partition,) = [p for p, end in reader.end_offsets().items() if end > ends[p]]
    reader.close()
    admin = KafkaAdminClient(bootstrap_servers=scene.settings.kafka_bootstrap)
    admin.delete_records({TopicPartition(scene.settings.topic, partition): ends[partition] + 1})
    admin.close()
    return Deleted(partition, ends[partition], 300)


def hour_text(ago: int) -> str:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    return (now + timedelta(hours=ago)).isoformat()
