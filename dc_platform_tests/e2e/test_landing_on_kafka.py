"""Landing on a real broker: transactions, formats of foreign producers, kills in mid-flight."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from dc_platform.broker.client import ensure_topic
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake import audit
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.e2e.parts import land
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.records import arrow_bytes

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

SOURCE = "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01"
ARROW = [("content-type", b"application/vnd.apache.arrow.stream")]


class Scene(NamedTuple):
    """A topic and the lake that it lands in."""

    bootstrap: str
    topic: str
    environment: dict[str, str]
    lake: Lake

    def producer(self, **more: Any) -> KafkaProducer:
        return KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", **more)

    def land(self) -> None:
        land(self.environment)

    def ids(self) -> list[str]:
        return sorted(row[0] for row in read_table(self.lake, SILVER_EVENTS, "event_id"))


@pytest.fixture
def scene(kafka: LocalKafka, tmp_path: Path) -> Scene:
    topic = f"landing-{uuid.uuid4().hex[:8]}"
    ensure_topic(kafka.bootstrap, topic, partitions=2, replication=1)
    environment = {
        "DCP_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "DCP_TOPIC": topic,
        "DCP_TOPIC_PARTITIONS": "2",
        "DCP_LAKE_URI": str(tmp_path / "lake"),
        "DCP_DATA_DIR": str(tmp_path / "data"),
        "DCP_UNKNOWN_SOURCES": "accept",
    }
    return Scene(kafka.bootstrap, topic, environment, Lake(str(tmp_path / "lake")))


def ids(count: int) -> Iterator[str]:
    return (str(uuid.uuid4()) for _ in range(count))


def event(event_id: str) -> bytes:
    return json.dumps(
        {"eventId": event_id, "sourceId": SOURCE, "eventType": "t", "payload": {"n": 1}}
    ).encode()


def test_only_committed_transactions_land_and_their_markers_are_no_gap(scene: Scene) -> None:
    expected = []
    for number in range(4):
        producer = scene.producer(transactional_id=f"{scene.topic}-{number}")
        producer.init_transactions()
        producer.begin_transaction()
        sent = list(ids(10))
        for event_id in sent:
            producer.send(scene.topic, event(event_id), partition=number % 2)
        if number < 2:
            producer.commit_transaction()
            expected += sent
        else:
            producer.abort_transaction()
        producer.close()
    scene.land()
    plain = scene.producer()
    after = list(ids(3))
    for event_id in after:
        plain.send(scene.topic, event(event_id), partition=0)
    plain.close()
    scene.land()
    assert scene.ids() == sorted(expected + after)
    assert audit.offset_gaps(scene.lake).number == 0


def test_what_stands_behind_an_open_transaction_waits_for_it(scene: Scene) -> None:
    open_ = scene.producer(transactional_id=scene.topic)
    open_.init_transactions()
    open_.begin_transaction()
    (first,) = ids(1)
    open_.send(scene.topic, event(first), partition=0).get(timeout=30)
    plain = scene.producer()
    (second,) = ids(1)
    plain.send(scene.topic, event(second), partition=0).get(timeout=30)
    plain.close()
    scene.land()
    assert scene.ids() == []
    open_.commit_transaction()
    open_.close()
    scene.land()
    assert scene.ids() == sorted([first, second])


def test_formats_side_by_side_in_one_partition(scene: Scene) -> None:
    single, many, columns = list(ids(1)), list(ids(50)), list(ids(200))
    producer = scene.producer(compression_type="zstd")
    for value, headers in (
        (event(single[0]), []),
        (b"\n".join(map(event, many)), [("content-type", b"application/x-ndjson")]),
        (b"no JSON", []),
        (
            arrow_bytes(
                pa.table(
                    {
                        "eventId": columns,
                        "sourceId": [SOURCE] * len(columns),
                        "eventType": ["t"] * len(columns),
                        "payload": ['{"n": 1.50}'] * len(columns),
                    }
                )
            ),
            ARROW,
        ),
        (b"ARROW1 cut off", ARROW),
        (event(single[0]), []),
    ):
        producer.send(scene.topic, value, headers=headers, partition=1)
    producer.close()
    scene.land()
    assert scene.ids() == sorted(single + many + columns)
    assert len(read_table(scene.lake, SILVER_QUARANTINE, "reason")) == 2
    assert len(read_table(scene.lake, BRONZE_EVENTS, "raw")) == 1 + 50 + 1 + 200 + 1 + 1
    payloads = {row[0] for row in read_table(scene.lake, SILVER_EVENTS, "payload")}
    assert payloads == {'{"n": 1}', '{"n": 1.50}'}


def test_what_kafka_deleted_before_it_landed_is_on_record(scene: Scene) -> None:
    producer = scene.producer()
    lost, kept = list(ids(5)), list(ids(5))
    for event_id in lost + kept:
        producer.send(scene.topic, event(event_id), partition=0).get(timeout=30)
    first = list(ids(2))
    for event_id in first:
        producer.send(scene.topic, event(event_id), partition=1)
    producer.flush()
    scene.land()
    more, gone, last = list(ids(4)), list(ids(3)), list(ids(2))
    for event_id in more:
        producer.send(scene.topic, event(event_id), partition=1)
    for event_id in gone + last:
        producer.send(scene.topic, event(event_id), partition=0).get(timeout=30)
    producer.close()
    admin = KafkaAdminClient(bootstrap_servers=scene.bootstrap)
    admin.delete_records({TopicPartition(scene.topic, 0): len(lost + kept + gone)})
    admin.close()
    scene.land()
    assert scene.ids() == sorted(lost + kept + first + more + last)
    found = audit.offset_gaps(scene.lake)
    assert found.examples == [{"partition": 0, "from": 10, "to": 13, "why": "expired"}]


def test_a_lander_that_is_killed_again_and_again_lands_each_event_once(scene: Scene) -> None:
    rng = random.Random(7)
    producer = scene.producer(linger_ms=20)
    sent = list(ids(40_000))
    # A poll gives 2,000 records at most: many commits for the kills to fall between.
    for start in range(0, len(sent), 2):
        block = [*sent[start : start + 2], rng.choice(sent[: start + 2])]
        producer.send(scene.topic, b"\n".join(map(event, block)), partition=rng.randrange(2))
    producer.close()
    environment = {**os.environ, **scene.environment, "DCP_LANDING_FILE_MB": "0.05"}
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-m", "dc_platform.cli.main", "land", "--until-caught-up"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        version = silver_version(scene.lake)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if silver_version(scene.lake) > version:
                time.sleep(rng.random() * 0.1)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        process.wait()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 3
    assert scene.ids() == sorted(sent)
    addresses = read_table(scene.lake, BRONZE_EVENTS, "kafka_partition, kafka_offset, kafka_index")
    assert len(addresses) == len(set(addresses)) == len(sent) + len(sent) // 2
    assert audit.offset_gaps(scene.lake).number == 0


def silver_version(lake: Lake) -> int:
    return LakeTable(lake, SILVER_EVENTS).version if lake.exists(SILVER_EVENTS) else -1
