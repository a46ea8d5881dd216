"""A schema that changes five times under load: no event is lost, each row is readable, and the
history is visible. Gateways judge what comes over HTTP, landing what strangers write to Kafka; each
verdict is the one of the version that it is stamped with, and stays so.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from kafka import KafkaProducer

from dc_platform.contracts.envelope import Passed
from dc_platform.contracts.schema import definition_of
from dc_platform.contracts.schema_check import Checker
from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.store import Lake
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.settings import Settings
from dc_platform_tests.e2e.parts import http_part, kafka, land
from dc_platform_tests.helpers.lake import read_table

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TOPIC = "schemas"
PER_REQUEST = 50
# Of each phase, over HTTP and by a stranger.
SENDERS = 2
STRANGE = 40


def definition(version: int) -> dict[str, Any]:
    """Each version keeps the fields of the one before; rules come and go. `probe` tells which one a
    gateway judges by.
    """
    fields: list[dict[str, Any]] = [
        {"name": "seq", "type": "NUMBER", "required": True},
        {"name": "amount", "type": "NUMBER"},
        {"name": "probe", "type": "NUMBER"},
    ]
    rules: list[dict[str, Any]] = [{"field": "probe", "rule": "range", "max": version}]
    if version >= 2:
        fields.append({"name": "currency", "type": "STRING", "required": True})
        fields[-1]["defaultValue"] = "EUR"
    if version >= 3:
        rules.append({"field": "amount", "rule": "range", "max": 89})
    if version >= 4:
        fields.append({"name": "user.id", "type": "STRING"})
        rules.append({"field": "amount", "rule": "expected", "max": 49})
    if version == 5:
        rules.append({"field": "amount", "rule": "range", "min": 10, "action": "DROP"})
    if version == 6:
        rules.append({"field": "amount", "rule": "range", "min": 5, "action": "WARN"})
    return {"fields": fields, "validations": rules}


VERSIONS = range(1, 7)
REASONS = {"value_out_of_range", "dropped_by_rule"}


class Scene(NamedTuple):
    """What the test drives."""

    environment: dict[str, str]
    bootstrap: str
    gateway: str
    admin: str
    settings: Settings

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.admin}"}
        return httpx.request(
            method, f"{self.gateway}/api/v1/admin{path}", headers=headers, timeout=60, **options
        )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with kafka(tmp_path / "kafka") as broker:
        environment = {
            "DCP_DATA_DIR": str(tmp_path / "data"),
            "DCP_KAFKA_BOOTSTRAP": broker.bootstrap,
            "DCP_TOPIC": TOPIC,
            "DCP_REGISTRY_REFRESH_SECONDS": "0.2",
        }
        settings = Settings(data_dir=tmp_path / "data")
        migrate(settings.registry)
        admin = Tokens(Database(settings.registry)).create(Scope.ADMIN)
        with http_part("dc_platform.gateway", environment, log=tmp_path / "gateway.log") as url:
            yield Scene(environment, broker.bootstrap, url, admin, settings)


@contextmanager
def landing(environment: dict[str, str], log: Path) -> Iterator[None]:
    """The landing loop beside what the block does."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dc_platform.cli.main", "land"],
            env={**environ, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0, log.read_text(errors="replace")[-3000:]


class Sender(threading.Thread):
    """Sends events with rising numbers, at a rate, and notes what each answer said of them."""

    def __init__(self, scene: Scene, key: str, first: int, rate: float) -> None:
        super().__init__(daemon=True)
        self._scene, self._key, self._rate = scene, key, rate
        self._next = first
        self._ended = threading.Event()
        self.accepted: set[int] = set()
        self.rejected: dict[int, str] = {}
        self.error: Exception | None = None

    def run(self) -> None:
        begun, sent = time.monotonic(), 0
        try:
            with httpx.Client(timeout=60, headers={"X-API-Key": self._key}) as client:
                while not self._ended.is_set():
                    self.send(
                        client, [{"amount": (self._next + i) % 100} for i in range(PER_REQUEST)]
                    )
                    sent += PER_REQUEST
                    time.sleep(max(0.0, begun + sent / self._rate - time.monotonic()))
        except Exception as error:
            self.error = error

    def send(self, client: httpx.Client, payloads: list[dict[str, Any]]) -> list[int]:
        """Numbers of the events that were accepted."""
        numbers = list(range(self._next, self._next + len(payloads)))
        self._next += len(payloads)
        events = [
            {"eventId": f"e-{n}", "eventType": "t", "payload": {"seq": n, **p}}
            for n, p in zip(numbers, payloads, strict=True)
        ]
        answer = client.post(f"{self._scene.gateway}/api/v1/events", json={"events": events})
        assert answer.status_code == 200, answer.text
        refused = {numbers[e["index"]]: e["code"] for e in answer.json()["errors"]}
        self.rejected |= refused
        passed = [n for n in numbers if n not in refused]
        assert len(passed) == answer.json()["accepted"]
        self.accepted.update(passed)
        return passed

    def end(self) -> None:
        self._ended.set()
        self.join(timeout=120)
        assert self.error is None, self.error


def through_the_versions(scene: Scene, path: Path, *, rate: int, seconds: float) -> float:
    """The whole test; gives the rate of events over HTTP that was reached."""
    first = {"name": "orders", **definition(1)}
    made = scene.ask("POST", "/sources", json={"name": "s", "type": "SERVER", "schema": first})
    source_id, key = made.json()["sourceId"], made.json()["apiKey"]
    [schema] = scene.ask("GET", "/schemas").json()["schemas"]
    schema_id = schema["schemaId"]
    senders = [Sender(scene, key, (i + 1) * 10**8, rate / SENDERS) for i in range(SENDERS)]
    prober = Sender(scene, key, 9 * 10**8, 0)
    strangers = Strangers(scene.bootstrap, source_id)
    begun = time.monotonic()
    with landing(scene.environment, path / "landing.log"):
        for sender in senders:
            sender.start()
        for version in VERSIONS:
            if version > 1:
                change(scene, schema_id, version)
            with httpx.Client(timeout=60, headers={"X-API-Key": key}) as client:
                while not prober.send(client, [{"probe": version}]):
                    time.sleep(0.05)
            strangers.write(version)
            time.sleep(seconds)
        for sender in senders:
            sender.end()
        took = time.monotonic() - begun
        strangers.close()
    land(scene.environment)
    people = [*senders, prober]
    checkers = {
        f"{schema_id}/{v}": Checker(schema_id, v, "orders", definition_of(definition(v)))
        for v in VERSIONS
    }
    silver, quarantine = rows_of(scene.settings.lake)
    nothing_is_lost(people, strangers, silver, quarantine)
    each_verdict_is_that_of_its_version(silver, quarantine, checkers)
    reasons_are_those_that_were_answered(people, quarantine)
    assert {row.version for row in silver} == {str(v) for v in VERSIONS}
    assert {row.version for row in quarantine if row.seq < 9 * 10**8} >= {"3", "4", "5", "6"}
    the_history_is_visible(scene, schema_id)
    a_later_reading_gives_the_same(scene, path, source_id, schema_id, (silver, quarantine))
    return sum(len(s.accepted) + len(s.rejected) for s in senders) / took


def change(scene: Scene, schema_id: str, version: int) -> None:
    """A version that the mode forbids is refused, and changes nothing; then the next one."""
    broken = definition(version)
    broken["fields"][0]["type"] = "STRING"
    path = f"/schemas/{schema_id}/versions"
    refused = scene.ask("POST", path, json=broken)
    assert refused.status_code == 409
    assert "'seq' is NUMBER and would become STRING" in refused.json()["detail"]
    added = scene.ask("POST", path, json=definition(version))
    assert (added.status_code, added.json().get("version")) == (201, str(version)), added.text


class Strangers:
    """Events that are written to Kafka beside the gateway."""

    def __init__(self, bootstrap: str, source_id: str) -> None:
        self._producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
        self._source_id = source_id
        self.written = 0

    def write(self, version: int) -> None:
        """Some now, and some when the version is in force by the history, too."""
        for _ in range(2):
            for _ in range(STRANGE // 2):
                number = 5 * 10**8 + self.written
                payload = {"seq": number, "amount": number % 100}
                event = {"eventId": f"e-{number}", "sourceId": self._source_id, "eventType": "t"}
                value = json.dumps({**event, "payload": payload}).encode()
                self._producer.send(TOPIC, value).get(timeout=60)
                self.written += 1
            time.sleep(1.1 if version > 1 else 0.0)

    def close(self) -> None:
        """End the producer."""
        self._producer.close()


class Row(NamedTuple):
    """What is compared of a row of silver or quarantine."""

    seq: int
    payload: str
    judged_by: str
    version: str
    flags: tuple[str, ...]
    reason: str | None
    address: tuple[int, int, int]


def rows_of(lake_uri: str) -> tuple[list[Row], list[Row]]:
    """(silver, quarantine); reading each payload is part of the test."""
    lake = Lake(lake_uri)
    address = "kafka_partition, kafka_offset, kafka_index"
    silver = [
        Row(json.loads(p)["seq"], p, judged, version, tuple(flags or ()), None, (a, b, c))
        for p, judged, version, flags, a, b, c in read_table(
            lake, SILVER_EVENTS, f"payload, judged_by, schema_version, flags, {address}"
        )
    ]
    quarantine = []
    for raw, judged, version, reason, a, b, c in read_table(
        lake, SILVER_QUARANTINE, f"raw, judged_by, schema_version, reason, {address}"
    ):
        payload = json.loads(raw)["payload"]
        row = Row(payload["seq"], json.dumps(payload), judged, version, (), reason, (a, b, c))
        quarantine.append(row)
    return silver, quarantine


def nothing_is_lost(
    senders: list[Sender], strangers: Strangers, silver: list[Row], quarantine: list[Row]
) -> None:
    strange = {5 * 10**8 + n for n in range(strangers.written)}
    landed, kept = Counter(r.seq for r in silver), Counter(r.seq for r in quarantine)
    assert set((landed + kept).values()) == {1}
    assert landed.keys() - strange == set().union(*(s.accepted for s in senders))
    assert kept.keys() - strange == {n for s in senders for n in s.rejected}
    assert strange <= landed.keys() | kept.keys()
    assert landed.keys() & strange
    assert kept.keys() & strange


def each_verdict_is_that_of_its_version(
    silver: list[Row], quarantine: list[Row], checkers: dict[str, Checker]
) -> None:
    for row in silver:
        verdict = checkers[row.judged_by].check(row.payload.encode())
        assert verdict == Passed(row.judged_by, row.flags)
        assert row.judged_by.endswith(f"/{row.version}")
    for row in quarantine:
        refused = checkers[row.judged_by].check(row.payload.encode())
        assert not isinstance(refused, Passed)
        assert refused.reason == row.reason
        assert row.judged_by.endswith(f"/{row.version}")
    assert {f for row in silver for f in row.flags} == {"anomaly:amount", "warn:amount:range"}


def reasons_are_those_that_were_answered(senders: list[Sender], quarantine: list[Row]) -> None:
    found = {row.seq: row.reason for row in quarantine}
    answered = {n: code for s in senders for n, code in s.rejected.items()}
    assert {n: found[n] for n in answered} == answered
    assert set(answered.values()) == REASONS


def the_history_is_visible(scene: Scene, schema_id: str) -> None:
    versions = scene.ask("GET", f"/schemas/{schema_id}/versions").json()["versions"]
    assert [v["version"] for v in versions] == [str(v) for v in VERSIONS]
    assert all(v["createdBy"].startswith("token ") and v["createdAt"] for v in versions)
    assert versions[1]["changes"][0].startswith("field 'currency' added (STRING, required")
    assert all(len(v["changes"]) >= 2 for v in versions[1:])


def a_later_reading_gives_the_same(
    scene: Scene, path: Path, source_id: str, schema_id: str, before: tuple[list[Row], list[Row]]
) -> None:
    """All of Kafka, landed again into another lake, when the registry says something else."""
    assert (
        scene.ask("POST", f"/schemas/{schema_id}/versions", json=definition(7)).status_code == 201
    )
    unbound = {"schema": {"schemaId": None}}
    assert scene.ask("PUT", f"/sources/{source_id}", json=unbound).json()["schemas"] == []
    again = str(path / "again")
    land({**scene.environment, "DCP_LAKE_URI": again})
    for one, two in zip(before, rows_of(again), strict=True):
        assert sorted(one) == sorted(two)


@pytest.mark.timeout(300)
def test_a_schema_changes_five_times(scene: Scene, tmp_path: Path) -> None:
    through_the_versions(scene, tmp_path, rate=400, seconds=0.3)


@pytest.mark.lakehouse
@pytest.mark.timeout(900)
def test_a_schema_changes_five_times_under_5000_events_a_second(
    scene: Scene, tmp_path: Path
) -> None:
    reached = through_the_versions(scene, tmp_path, rate=5_000, seconds=8)
    print(f"{reached:,.0f} events/s over HTTP while the schema changed five times")
