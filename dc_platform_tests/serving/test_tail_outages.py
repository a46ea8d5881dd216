"""A tail while Kafka is away, after a failure, and when the topic is another one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pyarrow as pa
import pytest
from kafka import KafkaAdminClient

from dc_platform.broker.client import RecordWriter, ensure_topic
from dc_platform.broker.records import TopicInfo
from dc_platform.errors import StoreUnavailableError
from dc_platform.landing.batch import Mask, is_valid
from dc_platform.serving import progress
from dc_platform.serving import tail as tail_module
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.helpers.tail import Tailed, polled
from dc_platform_tests.stack.harness import wait_for

pytestmark = pytest.mark.kafka


def killed(kafka: LocalKafka) -> Callable[[], None]:
    kafka.kill()

    def back() -> None:
        kafka.start()
        kafka.wait_ready()

    return back


def frozen(kafka: LocalKafka) -> Callable[[], None]:
    pid = kafka.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("away", "give_up_seconds"),
    [(killed, 300.0), (frozen, 0.0)],
    ids=["killed, and its consumer waits", "frozen, and another consumer takes over"],
)
def test_without_kafka_answers_stay_and_are_not_complete(
    kafka: LocalKafka,
    tailed: Callable[..., Tailed],
    monkeypatch: pytest.MonkeyPatch,
    away: Callable[[LocalKafka], Callable[[], None]],
    give_up_seconds: float,
) -> None:
    monkeypatch.setattr(progress, "_GIVE_UP_SECONDS", give_up_seconds)
    connected: list[str] = []

    def ensure(bootstrap: str, topic: str, **more: int) -> TopicInfo:
        connected.append(topic)
        return ensure_topic(bootstrap, topic, **more)

    monkeypatch.setattr(tail_module, "ensure_topic", ensure)
    tail = tailed()
    tail.start()
    tail.write(1)
    tail.wait_count(1)
    tail.land()
    tail.write(2, 3)
    tail.wait_count(3)
    with polled(tail, every=0.05) as seen:
        back = away(kafka)
        try:
            wait_for(lambda: not tail.seen().complete)
            assert tail.seen()[:2] == (3, 3)
            wait_for(lambda: give_up_seconds or len(connected) > 1)
        finally:
            back()
        wait_for(lambda: tail.seen().complete)
        tail.write(4, 3, partition=1)
        tail.wait_count(4)
        tail.land()
    assert {one.count for one in seen} == {3, 4}
    assert (len(connected) == 1) == bool(give_up_seconds)
    assert tail.seen()[:2] == (4, 4)


def test_a_topic_that_was_created_again_is_read_from_its_beginning(
    kafka: LocalKafka, tailed: Callable[..., Tailed]
) -> None:
    tail = tailed()
    for number in range(5):
        tail.write(number)
    tail.start()
    tail.land()
    tail.write(99)
    tail.wait_count(6)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.delete_topics([tail.info.name])
    admin.close()
    before, tail.info = tail.info, tail.create_topic()
    assert before.topic_id != tail.info.topic_id
    # More than the old topic had. What had not landed from it is gone with it.
    for number in range(3, 13):
        tail.write(number)
    wait_for(lambda: tail.tail.info == tail.info and tail.seen().complete)
    assert tail.seen()[:2] == (13, 13)
    tail.land()
    assert tail.seen()[:2] == (13, 13)
    assert tail.seen().tail_rows == 0


def test_partitions_that_are_added_are_read_beside_the_others(
    kafka: LocalKafka, tailed: Callable[..., Tailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tail keeps what it holds: with much in it, it would take long to read it anew."""
    forgotten: list[int] = []
    monkeypatch.setattr(tail_module.Tail, "_forget", lambda _: forgotten.append(1))
    tail = tailed()
    tail.start()
    tail.write(1, 2)
    tail.wait_count(2)
    with polled(tail, every=0.05) as seen:
        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        admin.create_partitions({tail.info.name: 3})
        admin.close()
        wait_for(lambda: tail.create_topic().partitions == 3)
        tail.info = tail.create_topic()
        # One that knows of it.
        tail.writer.close()
        tail.writer = RecordWriter(kafka.bootstrap, tail.info.name)
        tail.write(3, 1, partition=2)
        tail.wait_count(3)
        tail.land()
    assert {one.count for one in seen} == {2, 3}
    assert tail.seen()[:2] == (3, 3)
    assert tail.seen().tail_rows == 0
    assert not forgotten


def test_a_tail_that_begins_anew_hides_nothing(
    tailed: Callable[..., Tailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = tailed()
    tail.start()
    tail.write(1, 2, 3)
    tail.wait_count(3)
    failures = [StoreUnavailableError("the store failed")]

    def sometimes(rows: pa.Table) -> Mask:
        if failures:
            raise failures.pop()
        return is_valid(rows)

    monkeypatch.setattr(tail_module, "is_valid", sometimes)
    with polled(tail) as seen:
        # Before it fails: a poll takes longer than the tail may need to read an event.
        wait_for(lambda: seen)
        tail.write(4)
        tail.wait_count(4)
    assert not failures
    assert {one.count for one in seen} == {3, 4}
    assert {one.complete for one in seen if one.count == 3} == {True, False}
