"""Two slots land a topic that gets partitions under load, and then is another one: nobody helps."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from dc_platform.broker.client import RecordWriter, describe_topic
from dc_platform.broker.records import TopicInfo
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake import audit
from dc_platform.lake.store import Lake
from dc_platform.landing.lander import Ended, Lander
from dc_platform.landing.slots import Slot
from dc_platform.settings import Settings
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import in_thread
from dc_platform_tests.stack.harness import wait_for

pytestmark = pytest.mark.kafka
SOURCE = "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01"


class Load:
    """Sends one event every 5 ms to each partition in turn, every tenth of them twice."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._partitions = partitions
        self.sent: list[str] = []
        self._writer = RecordWriter(bootstrap, topic)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.005):
            event_id = str(uuid.uuid4())
            value = (
                f'{{"eventId":"{event_id}","sourceId":"{SOURCE}","eventType":"t","payload":{{}}}}'
            ).encode()
            self._writer.write(value, partition=number % self._partitions)
            if number % 10 == 0:
                # The same event by way of another partition, which may be the other slot's.
                self._writer.write(value, partition=(number + 1) % self._partitions)
            self.sent.append(event_id)
            number += 1

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        self._writer.close()


@contextmanager
def landing(settings: Settings, slots: int) -> Iterator[list[Lander]]:
    """A lander for each slot; at the end each has stopped as it was told."""
    stop = threading.Event()
    landers = [
        Lander(settings, sources=None, owner=f"slot-{n}", slot=Slot(n, slots)) for n in range(slots)
    ]
    started = [in_thread(lambda one=one: one.run(stop)) for one in landers]  # type: ignore[misc]
    try:
        yield landers
    finally:
        stop.set()
        for thread, _ in started:
            thread.join(30)
    assert [result for _, result in started] == [[Ended.STOPPED]] * slots


def all_landed(lake: Lake, sent: list[str]) -> Callable[[], bool]:
    def landed() -> bool:
        rows = read_table(lake, SILVER_EVENTS, "event_id")
        return len(rows) >= len(sent)

    return landed


def test_partitions_are_added_under_load_and_the_topic_is_created_again(
    kafka: LocalKafka, tmp_path: Path
) -> None:
    settings = Settings(
        kafka_bootstrap=kafka.bootstrap,
        topic=f"changing-{uuid.uuid4().hex[:8]}",
        topic_partitions=2,
        lake_uri=str(tmp_path / "lake"),
        data_dir=tmp_path,
        unknown_sources="accept",
        landing_freshness_seconds=0.2,
        identity_memory_mb=16,
    )
    lake = Lake(settings.lake)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)

    def describe() -> TopicInfo | None:
        return describe_topic(kafka.bootstrap, settings.topic)

    with landing(settings, 2) as landers:
        load = Load(kafka.bootstrap, settings.topic, 2)
        wait_for(lambda: all(lander.totals.commits > 1 for lander in landers))
        admin.create_partitions({settings.topic: 5})
        wait_for(lambda: (found := describe()) and found.partitions == 5)
        # A producer that knows the new ones, beside the one that does not yet.
        more = Load(kafka.bootstrap, settings.topic, 5)
        wait_for(lambda: [set(one.totals.offsets) for one in landers] == [{0, 2, 4}, {1, 3}])
        load.stop()
        more.stop()
        sent = load.sent + more.sent
        wait_for(all_landed(lake, sent))
        first = describe()
        assert first is not None
        assert landers[0].info == landers[1].info == first

        admin.delete_topics([settings.topic])
        wait_for(lambda: describe() is None)
        # As the sensor does at its next tick.
        Lander(settings, sources=None, owner="sensor").close()
        again = Load(kafka.bootstrap, settings.topic, 2)
        wait_for(lambda: all(lander.info.topic_id != first.topic_id for lander in landers))
        time.sleep(0.5)
        again.stop()
        sent += again.sent
        wait_for(all_landed(lake, sent))
    admin.close()
    assert sorted(row[0] for row in read_table(lake, SILVER_EVENTS, "event_id")) == sorted(sent)
    address = "topic_id, kafka_partition, kafka_offset, kafka_index"
    addresses = read_table(lake, BRONZE_EVENTS, address)
    assert len(addresses) == len(set(addresses)) > len(sent)
    assert {row[0] for row in addresses} == {first.topic_id, landers[0].info.topic_id}
    assert audit.offset_gaps(lake).number == 0
