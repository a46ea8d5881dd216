"""A topic of its own on a real broker, the lake that it lands in, and what must be in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from dc_platform.broker.client import ensure_topic
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TABLES
from dc_platform.lake import audit
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.lander import Ended, Lander, Totals
from dc_platform.settings import Settings
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.helpers.lake import read_table

SOURCE = "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01"
DCP_LAND = [sys.executable, "-m", "dc_platform.cli.main", "land"]


class QuickKafka(LocalKafka):
    """A broker that looks for what retention lets it delete twice a second, not every 5 minutes."""

    def prepare(self) -> list[str]:
        command = super().prepare()
        with self._properties.open("a") as properties:
            properties.write(
                "log.retention.check.interval.ms=500\n"
                "log.initial.task.delay.ms=500\n"
                "file.delete.delay.ms=0\n"
            )
        return command


class Scene(NamedTuple):
    """A topic with two partitions and a lake."""

    bootstrap: str
    topic: str
    directory: Path

    @classmethod
    def on(cls, bootstrap: str, directory: Path) -> Scene:
        """With a new topic."""
        topic = f"faults-{uuid.uuid4().hex[:8]}"
        ensure_topic(bootstrap, topic, partitions=2, replication=1)
        return cls(bootstrap, topic, directory)

    @property
    def lake(self) -> Lake:
        return Lake(str(self.directory / "lake"))

    @property
    def environment(self) -> dict[str, str]:
        """What `dcp land` needs to be told."""
        return {
            "DCP_KAFKA_BOOTSTRAP": self.bootstrap,
            "DCP_TOPIC": self.topic,
            "DCP_TOPIC_PARTITIONS": "2",
            "DCP_LAKE_URI": self.lake.uri,
            "DCP_DATA_DIR": str(self.directory / "data"),
            "DCP_UNKNOWN_SOURCES": "accept",
        }

    def settings(self, **more: Any) -> Settings:
        """The same for a lander in this process."""
        given: dict[str, Any] = {
            "kafka_bootstrap": self.bootstrap,
            "topic": self.topic,
            "topic_partitions": 2,
            "lake_uri": self.lake.uri,
            "data_dir": self.directory / "data",
            "unknown_sources": "accept",
        }
        return Settings(**(given | more))

    # --- Kafka ---

    def producer(self, **more: Any) -> KafkaProducer:
        return KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", **more)

    def send(self, ids: Iterable[str], *, partition: int = 0) -> None:
        """One event a record; returns when Kafka has them."""
        producer = self.producer(linger_ms=5)
        for event_id in ids:
            producer.send(self.topic, event(event_id), partition=partition)
        producer.close()

    def configure(self, **configs: str) -> None:
        """Change the topic's configuration; names with underscores for dots."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        named = {name.replace("_", "."): value for name, value in configs.items()}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.topic, named)])
        admin.close()

    # --- landing ---

    def land(self, **settings: Any) -> Totals:
        """Land all that Kafka has, in this process."""
        lander = Lander(self.settings(**settings), sources=None, owner="test")
        assert lander.run(threading.Event(), until_caught_up=True) is Ended.CAUGHT_UP
        return lander.totals

    def finish(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """`dcp land --until-caught-up`, whatever becomes of it."""
        return subprocess.run(
            [*DCP_LAND, "--until-caught-up", "--json"],
            env={**os.environ, **self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    @contextmanager
    def landing(
        self,
        command: list[str] = DCP_LAND,
        environment: Mapping[str, str] | None = None,
        name: str = "land",
    ) -> Iterator[subprocess.Popen[bytes]]:
        """`dcp land` in a process of its own; killed at the end. Its log: `log_of(name)`."""
        with self.log_of(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **self.environment, **(environment or {})},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def log_of(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    # --- what is in the lake ---

    def ids(self) -> list[str]:
        """Event ids of silver."""
        if not self.lake.exists(SILVER_EVENTS):
            return []
        return sorted(row[0] for row in read_table(self.lake, SILVER_EVENTS, "event_id"))

    def rows(self) -> int:
        """Rows of silver, by the log."""
        if not self.lake.exists(SILVER_EVENTS):
            return 0
        return LakeTable(self.lake, SILVER_EVENTS).snapshot().rows

    def version(self) -> int:
        """Version of silver; -1 before there is one."""
        return LakeTable(self.lake, SILVER_EVENTS).version if self.rows() else -1

    def rejected(self) -> list[tuple[Any, ...]]:
        """(reason, bytes, their length) of quarantine."""
        return read_table(self.lake, SILVER_QUARANTINE, "reason, raw, raw_length")

    def assert_exact(self, ids: Iterable[str], *, gaps: int = 0) -> None:
        """Silver has these ids, each once; bronze each address once; the audit finds nothing else;
        and every file that a table refers to is there, whole.
        """
        expected = sorted(set(ids))
        found = self.ids()
        assert Counter(found) == Counter(expected), (
            f"{len(found)} rows, {len(set(found))} ids, expected {len(expected)}"
        )
        address = "kafka_partition, kafka_offset, kafka_index"
        addresses = read_table(self.lake, BRONZE_EVENTS, address)
        assert len(addresses) == len(set(addresses))
        assert audit.offset_gaps(self.lake).number == gaps
        assert audit.lost_records(self.lake).number == 0
        for spec in TABLES:
            snapshot = LakeTable(self.lake, spec).snapshot()
            for path, size in zip(
                snapshot.paths, snapshot.actions["size_bytes"].to_pylist(), strict=True
            ):
                assert Path(path).stat().st_size == size, path


def ids(count: int) -> list[str]:
    """New event ids."""
    return [str(uuid.uuid4()) for _ in range(count)]


def event(event_id: str, **payload: Any) -> bytes:
    """An event as a stranger writes it."""
    made = {
        "eventId": event_id,
        "sourceId": SOURCE,
        "eventType": "t",
        "payload": payload or {"n": 1},
    }
    return json.dumps(made).encode()


class Sender(threading.Thread):
    """Sends events until it is ended, one a record, through whatever befalls the broker.

    `sent` are ids that Kafka has acknowledged. The producer is idempotent and tries for ten minutes,
    so what it was given gets there once.
    """

    def __init__(self, scene: Scene, *, pause: float = 0.0005) -> None:
        super().__init__(daemon=True)
        self._producer = scene.producer(
            enable_idempotence=True, delivery_timeout_ms=600_000, linger_ms=20
        )
        self._topic = scene.topic
        self._pause = pause
        self._ended = threading.Event()
        self._pending: list[tuple[str, Any]] = []

    def run(self) -> None:
        number = 0
        while not self._ended.wait(self._pause):
            (event_id,) = ids(1)
            future = self._producer.send(self._topic, event(event_id), partition=number % 2)
            self._pending.append((event_id, future))
            number += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(timeout=60)
        self._producer.close(timeout=1)

    def end(self) -> list[str]:
        """Stop; gives the ids that Kafka has."""
        self._ended.set()
        self.join(timeout=60)
        self._producer.flush(timeout=120)
        assert all(future.succeeded() for _, future in self._pending)
        return [event_id for event_id, _ in self._pending]


def wait_stopped(process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until a process that stops itself (SIGSTOP) has done so."""
    deadline = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(process.pid, os.WUNTRACED | os.WNOHANG)
        if pid:
            assert os.WIFSTOPPED(status), f"it ended with {status}"
            return
        assert time.monotonic() < deadline, "it did not stop"
        time.sleep(0.02)


def wake(process: subprocess.Popen[bytes]) -> None:
    """SIGCONT."""
    process.send_signal(signal.SIGCONT)
