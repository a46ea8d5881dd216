"""The union in Trino, over the landing border: at rest it equals DuckDB's; in motion it never counts
an event twice and never loses one that it had.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from dc_platform.registry.database import Database
from dc_platform.registry.retention import Kind, Retention
from dc_platform.registry.sampling import SamplingRule
from dc_platform.registry.sources import Sources
from dc_platform.retention.run import RetentionRun
from dc_platform_tests.e2e.parts import land
from dc_platform_tests.e2e.platform import Source
from dc_platform_tests.e2e.union import UnionScene

pytestmark = [pytest.mark.trino, pytest.mark.slow, pytest.mark.timeout(600)]

DOCS = Path(__file__).parents[2] / "docs"
# Flags some events, beside those that are late.
SCHEMA = {
    "fields": [{"name": "n", "type": "NUMBER"}],
    "validations": [
        {"field": "n", "rule": "range", "min": 5, "action": "WARN"},
        {"field": "n", "rule": "expected", "min": 3, "max": 30},
    ],
}


class Scene(NamedTuple):
    """What the test drives: the parts, and its source."""

    union: UnionScene
    source: Source


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
        if number % 10 == 3:
            event["metadata"] = {"tags": {"a": "1", "payload": "x"}}
        if number % 10 == 4:
            event["extra"] = [{"a": {"b": 1, "payload": 2}, "payload": {"payload": 3}}]
        if timed:
            event["timestamp"] = now - 3_600_000 + number
        events.append(event)
    return events


def send(scene: Scene, events: list[dict[str, Any]]) -> None:
    answer = httpx.post(
        f"{scene.union.gateway}/api/v1/events",
        json={"events": events},
        headers={"X-API-Key": scene.source.key},
        timeout=30,
    )
    assert answer.json()["accepted"] == len(events), answer.text


_ROW = (
    "tenant_id, source_id, event_id, client_event_id, event_type, payload, schema_version,"
    " dedup_scope, sample_rate, topic_id, kafka_partition, kafka_offset, kafka_index, judged_by"
)


def in_duckdb(scene: Scene) -> list[tuple[Any, ...]]:
    rows = scene.union.rows(
        f"select {_ROW}, array_to_string(flags, ' '), epoch_ms(event_time), epoch_ms(received_at)"
        f" from events where source_id = '{scene.source.source_id}'"
    )
    return sorted((tuple(row.values()) for row in rows), key=repr)


def in_trino(scene: Scene) -> list[tuple[Any, ...]]:
    rows = scene.union.trino.query(
        f"SELECT {_ROW}, array_join(flags, ' '), to_milliseconds(event_time - from_unixtime(0)),"
        " to_milliseconds(received_at - from_unixtime(0)) FROM lake.default.events"
        f" WHERE source_id = '{scene.source.source_id}'"
    )
    return sorted((tuple(row) for row in rows), key=repr)


def test_trino_sees_each_event_once_at_rest_and_in_motion(union_scene: UnionScene) -> None:
    scene = Scene(union_scene, union_scene.source("trino", SCHEMA))
    first = events_of([str(uuid.uuid4()) for _ in range(50)], timed=True)
    second = events_of([f"text {i}" for i in range(50)], timed=False)
    send(scene, first)
    send(scene, second)
    wait_until_seen(scene, 100)
    # Nothing has landed: everything comes from Kafka.
    assert in_trino(scene) == in_duckdb(scene)
    flags = {row[14] for row in in_duckdb(scene)}
    assert flags >= {None, "anomaly:n", "warn:n:range", "warn:n:range anomaly:n"}
    assert any(flag is not None and flag.startswith("late ") for flag in flags)
    land(scene.union.environment)
    # Everything has landed; then duplicates of landed events wait in the tail, beside new ones.
    send(scene, first)
    send(scene, second)
    send(scene, events_of([str(uuid.uuid4()) for _ in range(30)], timed=True))
    wait_until_seen(scene, 130)
    assert len(in_trino(scene)) == 130
    assert in_trino(scene) == in_duckdb(scene)
    in_every_format(scene)
    in_motion(scene)
    land(scene.union.environment)
    wait_until_seen(scene, len(in_duckdb(scene)))
    assert in_trino(scene) == in_duckdb(scene)
    deleted_stay_away(scene, first)
    sampled(scene)
    assert in_trino(scene) == in_duckdb(scene)
    land(scene.union.environment)
    assert in_trino(scene) == in_duckdb(scene)


def sampled(scene: Scene) -> None:
    """From now on half of the events are left out, by both engines and by landing."""
    database = Database(scene.union.settings.registry)
    Sources(database).change(scene.source.source_id, sampling=SamplingRule(rate=0.5))
    deadline = time.monotonic() + 60
    while not any(0.5 in row for row in in_duckdb(scene)):
        assert time.monotonic() < deadline
        send(scene, events_of([str(uuid.uuid4()) for _ in range(20)], timed=True))
    database.close()


def in_every_format(scene: Scene) -> None:
    """`dcp sql --engine trino` prints what `dcp sql` prints."""
    directory = scene.union.settings.data_dir
    url = scene.union.trino.url
    stack = {"query": scene.union.serving, "trino": url}
    (directory / "stack.json").write_text(json.dumps(stack))
    sql = (
        "select event_type, client_event_id, event_time, dedup_scope, sample_rate, kafka_offset"
        f" from events where source_id = '{scene.source.source_id}' and client_event_id is not null"
        " order by client_event_id"
    )
    for form in ("json", "csv", "table"):
        assert dcp_sql(directory, sql, form, "trino") == dcp_sql(directory, sql, form, "duckdb")
    count = f"select count(*) as n from silver.events where source_id = '{scene.source.source_id}'"
    counted = dcp_sql(directory, count, "json", "trino")
    assert json.loads(counted) == [{"n": 100}]
    odd = "select map(array['a'], array[1]) as m, cast(1.50 as decimal(20,2)) as d, null as x"
    assert json.loads(dcp_sql(directory, odd, "json", "trino")) == [
        {"m": '{"a":1}', "d": 1.5, "x": None}
    ]
    example = re.search(r"```python\n(.*?)```", (DOCS / "trino.md").read_text(), re.DOTALL)
    assert example is not None
    code = example[1].replace("8082", url.rsplit(":", 1)[1])
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "t 130" in printed.stdout.splitlines()
    failed = run_dcp_sql(directory, "select nothing from events", "json", "trino")
    assert failed.returncode == 1
    assert "COLUMN_NOT_FOUND" in failed.stderr
    assert failed.stderr.count("\n") == 1


def dcp_sql(directory: Path, sql: str, form: str, engine: str) -> str:
    done = run_dcp_sql(directory, sql, form, engine)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_dcp_sql(
    directory: Path, sql: str, form: str, engine: str
) -> subprocess.CompletedProcess[str]:
    verb = [sys.executable, "-m", "dc_platform.cli.main", "sql", sql, "--format", form]
    return subprocess.run(
        [*verb, "--engine", engine, "--data-dir", str(directory)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def deleted_stay_away(scene: Scene, sent: list[dict[str, Any]]) -> None:
    """Events are deleted, and sent again: in the tail of both they are not shown."""
    settings = scene.union.settings
    database = Database(settings.registry)
    retention = Retention(database)
    asked = retention.request(
        Kind.PERSON, "default", {"field": "n", "value": "7"}, who="test", at_once=True
    )
    outcome = RetentionRun(settings, retention).carry_out(asked)
    database.close()
    assert outcome.waits is None
    kept = in_trino(scene)
    assert len(kept) > 100
    assert not [row for row in kept if '"n":7,' in row[5]]
    fresh = events_of([str(uuid.uuid4()) for _ in range(5)], timed=True)
    send(scene, [event for event in sent if event["payload"]["n"] == 7])
    send(scene, fresh)
    wait_until_seen(scene, len(kept) + 5)
    assert len(in_trino(scene)) == len(kept) + 5
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
            land(scene.union.environment)

    threads = [threading.Thread(target=feed), threading.Thread(target=lands)]
    for thread in threads:
        thread.start()
    seen = []
    try:
        for _ in range(15):
            counted = scene.union.trino.query(
                "SELECT count(*), count(DISTINCT event_id) FROM lake.default.events"
                f" WHERE source_id = '{scene.source.source_id}'"
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
