"""Deletion by person, on a real broker: from every table, the tail and what is still under way."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.ops_tables import TOMBSTONES
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.balance import balance, pin
from dc_platform.lake.ledger_findings import totals, unbalanced
from dc_platform.lake.table import LakeTable
from dc_platform.landing.lander import Ended
from dc_platform.registry.retention import Deletion, Kind, Retention
from dc_platform.retention.deletion import recorded
from dc_platform.retention.run import RetentionRun
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.records import SOURCE
from dc_platform_tests.helpers.retention import registry
from dc_platform_tests.helpers.tail import Tailed

pytestmark = pytest.mark.kafka

PERSON = "anna o'neil-7"


class Scene(Tailed):
    """A topic, a lake, a tail, and deletions of them."""

    def __init__(self, directory: Path, bootstrap: str) -> None:
        super().__init__(directory, bootstrap)
        self.retention: Retention = registry(directory)
        self.run = RetentionRun(self.settings, self.retention)

    def send(self, user: str, event_id: str, *, partition: int = 0, **more: Any) -> None:
        event = {"sourceId": SOURCE, "eventId": event_id, "eventType": "t"}
        payload = {"userId": user, **more}
        self.raw(json.dumps({**event, "payload": payload}).encode(), partition)

    def raw(self, value: bytes, partition: int = 0) -> None:
        self.writer.write(value, partition=partition, headers=[])
        self.writer.flush()

    def land(self) -> None:
        lander = self.lander()
        assert lander.run(threading.Event(), until_caught_up=True) is Ended.CAUGHT_UP
        if self.tail.view is not None:
            self.follow(lander.totals.silver_version)

    def ask(self, value: str = PERSON) -> Deletion:
        predicate = {"field": "userId", "value": value}
        return self.retention.request(Kind.PERSON, "default", predicate, who="me", at_once=True)

    def users(self) -> list[str]:
        rows = read_table(self.lake, SILVER_EVENTS, "payload")
        return sorted(json.loads(payload)["userId"] for (payload,) in rows)


@pytest.fixture
def scene(kafka: LocalKafka, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, kafka.bootstrap)
    yield made
    made.retention._database.close()
    made.writer.close()
    if made.tail.view is not None:
        made.tail.stop()


def test_a_person_goes_from_every_table_and_stays_away(scene: Scene) -> None:
    ids = [str(uuid.uuid4()) for _ in range(5)]
    scene.send(PERSON, ids[0])
    scene.send("bob", ids[1])
    # The other's events name the person elsewhere; ids of others begin alike.
    scene.send("bob", ids[2], about=PERSON)
    scene.send(PERSON + "7", ids[3], partition=1)
    # Escaped, rejected, and no text at all.
    escaped = PERSON.replace("a", "\\u0061").encode()
    scene.raw(
        b'{"sourceId":"%s","eventId":"%s","eventType":"t","payload":{"userId":"%s"}}'
        % (SOURCE.encode(), ids[4].encode(), escaped)
    )
    scene.raw(b'{"eventType":"t","payload":{"userId":"%s"}}' % PERSON.encode())
    scene.raw(b"broken " + PERSON.encode() + b" \xff")
    scene.raw(b"broken " + PERSON.encode() + b"8")
    scene.land()
    assert len(read_table(scene.lake, SILVER_QUARANTINE, "raw")) == 3
    outcome = scene.run.carry_out(scene.ask())
    assert outcome.waits is None
    assert outcome.proof is not None
    assert scene.users() == sorted(["bob", "bob", PERSON + "7"])
    assert len(read_table(scene.lake, SILVER_QUARANTINE, "raw")) == 1
    verdicts = [v for (v,) in read_table(scene.lake, BRONZE_EVENTS, "verdict")]
    assert verdicts.count("deleted") == 4
    sums = totals(balance(pin(scene.lake)))
    assert (sums["deleted"], sums["missing"]) == (4, 0)
    # What is on record names nobody.
    [row, *_] = recorded(scene.lake, outcome.deletion.deletion_id)
    assert PERSON not in str(row)
    known = scene.retention.deletion(outcome.deletion.deletion_id)
    assert known is not None
    assert PERSON not in str(known)
    # Sent again, by hand or by a retry: it does not land, and bronze keeps no more than its address.
    scene.send(PERSON, ids[0])
    scene.send("carl", str(uuid.uuid4()))
    scene.land()
    assert scene.users() == sorted(["bob", "bob", "carl", PERSON + "7"])
    assert ids[0] not in str(read_table(scene.lake, BRONZE_EVENTS))
    assert unbalanced(balance(pin(scene.lake))) == []


def test_events_under_way_are_waited_for(scene: Scene) -> None:
    scene.send(PERSON, str(uuid.uuid4()))
    scene.land()
    scene.send(PERSON, str(uuid.uuid4()), partition=1)
    outcome = scene.run.carry_out(scene.ask())
    assert outcome.waits is not None
    assert "partition 1 has landed up to 0" in outcome.waits
    # What is in the tables is gone already.
    assert scene.users() == []
    scene.land()
    assert scene.users() == [PERSON]
    [outcome] = scene.run.run(who="me")
    assert outcome.waits is None
    assert scene.users() == []
    assert outcome.erased[SILVER_EVENTS.name].rows == 2
    assert len(read_table(scene.lake, TOMBSTONES, "event_id")) == 2


def test_the_tail_does_not_show_what_was_deleted(scene: Scene) -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    scene.start()
    scene.send(PERSON, ids[0])
    scene.send("bob", ids[1])
    scene.wait_count(2)
    scene.land()
    assert scene.run.carry_out(scene.ask()).waits is None
    scene.follow(LakeTable(scene.lake, SILVER_EVENTS).version)
    scene.wait_count(1)
    # Again, and a fresh event behind it: when that one is there, the first was looked at.
    scene.send(PERSON, ids[0])
    scene.send("bob", ids[2])
    scene.wait_count(2)
    scene.view = scene.tail.view
    assert PERSON not in str(scene.sql("select payload from events"))


def test_a_source_can_be_deleted(scene: Scene) -> None:
    other = str(uuid.uuid4())
    scene.send("bob", str(uuid.uuid4()))
    event = {"sourceId": other, "eventId": "mine", "eventType": "t", "payload": {}}
    scene.raw(json.dumps(event).encode())
    scene.land()
    predicate = {"field": "sourceId", "value": other.upper()}
    asked = scene.retention.request(Kind.PERSON, "default", predicate, who="me", at_once=True)
    outcome = scene.run.carry_out(asked)
    assert outcome.waits is None
    assert scene.users() == ["bob"]
    assert scene.run.carry_out(asked).erased[BRONZE_EVENTS.name].rows == 1
