"""What the gateway writes down about each block, and how that gets to Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from dc_platform.broker.producer import BlockProducer
from dc_platform.broker.records import Acknowledged
from dc_platform.contracts.acks import Ack, Count, hour_of, read_acks
from dc_platform.contracts.blocks import BlockId
from dc_platform.gateway.acks import Acks
from dc_platform.gateway.journal import Journal, Segment
from dc_platform_tests.gateway.batching import Requests, lines
from dc_platform_tests.gateway.producers import FakeProducer
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.virtual_time import run, settle


class Scene:
    """Acks of one start over a producer in memory."""

    def __init__(self, directory: Path, boot: str, producer: FakeProducer) -> None:
        self.producer = producer
        self.journal = Journal(directory, boot)
        self.acks = Acks(
            self.journal, cast(BlockProducer, producer), gateway_id="g", clock=lambda: NOW
        )
        self.acks.topic_id = "topic"
        self._boot = boot

    def saw(self, number: int, *, partition: int = 0, offset: int | None = None) -> None:
        self.acks.saw(
            BlockId("g", self._boot, number),
            Acknowledged(partition, number if offset is None else offset),
            tenant="t",
            verdict="valid",
            counts={("s", 1): number},
        )

    @property
    def shipped(self) -> list[Ack | None]:
        return list(read_acks(record.value for record in self.producer.records))


def blocks(acks: list[Ack | None]) -> list[str]:
    return [ack.block if ack else "" for ack in acks]


def test_each_block_is_written_down_before_anybody_is_answered() -> None:
    async def scenario() -> None:
        requests = Requests()
        first = await requests.add("a", [b"1", b"2"])
        for source, hour in (("b", 0), ("b", 1), ("c", 0)):
            await requests.add(source, [b"x"], received_ms=NOW + hour * HOUR)
        large = await requests.add("d", lines("l", 150))
        rejects = asyncio.create_task(
            requests.batcher.add_rejects("t", "e", b"arrow", 3, received_ms=NOW)
        )
        await settle()
        assert requests.seen == []
        requests.producer.acknowledge(0)
        await first
        assert [seen.counts for seen in requests.seen] == [{("a", hour_of(NOW)): 2}]
        await settle()
        requests.producer.acknowledge_all()
        await asyncio.gather(large, rejects)
        await settle()
        hour = hour_of(NOW)
        assert {(seen.verdict, tuple(sorted(seen.counts.items()))) for seen in requests.seen} == {
            ("valid", ((("a", hour), 2),)),
            ("valid", ((("b", hour), 1), (("b", hour + 1), 1), (("c", hour), 1))),
            ("valid", ((("d", hour), 100),)),
            ("valid", ((("d", hour), 50),)),
            ("rejected", ((("e", hour), 3),)),
        }
        # The header counts by source, whatever the hour.
        mixed = next(r for r in requests.records if "b" in r.counts)
        assert mixed.counts == {"b": 2, "c": 1}
        for seen in requests.seen:
            record = requests.records[seen.at.offset]
            assert record.headers["dcp-block"].decode() == str(seen.block)

    run(scenario())


def test_a_block_that_kafka_refused_is_not_written_down() -> None:
    async def scenario() -> None:
        requests = Requests()
        task = await requests.add("a", [b"1"])
        requests.producer.fail(0)
        await asyncio.gather(task, return_exceptions=True)
        assert requests.seen == []

    run(scenario())


def test_lines_are_shipped_each_second_and_forgotten(tmp_path: Path) -> None:
    async def scenario() -> None:
        scene = Scene(tmp_path, "b", FakeProducer(partitions=1))
        task = asyncio.create_task(scene.acks.follow())
        for number in range(5):
            scene.saw(number)
        await asyncio.sleep(3)
        assert scene.shipped == [
            Ack(f"g/b/{n}", "t", "topic", 0, n, "valid", NOW, [Count("s", 1, n)]) for n in range(5)
        ]
        assert list(tmp_path.glob("*")) == []
        task.cancel()

    run(scenario())


def test_a_killed_start_is_shipped_by_the_next_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = FakeProducer(partitions=1)
        dead = Scene(tmp_path, "dead", producer)
        dead.saw(1)
        dead.journal.close()  # what the kernel does to the files of a killed process
        scene = Scene(tmp_path, "b", producer)
        scene.saw(2)
        task = asyncio.create_task(scene.acks.follow())
        await asyncio.sleep(3)
        assert blocks(scene.shipped) == ["g/dead/1", "g/b/2"]
        assert list(tmp_path.glob("*")) == []
        task.cancel()

    run(scenario())


def test_two_gateways_of_one_id_ship_what_is_theirs_and_what_the_other_leaves(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        held, free = FakeProducer(partitions=1, held=True), FakeProducer(partitions=1)
        first, second = Scene(tmp_path, "a", held), Scene(tmp_path, "b", free)
        tasks = [asyncio.create_task(scene.acks.follow()) for scene in (first, second)]
        # What `a` has taken waits for Kafka, while `b` looks around again and again.
        first.saw(1)
        await asyncio.sleep(200)
        second.saw(2)
        await asyncio.sleep(2)
        assert blocks(second.shipped) == ["g/b/2"]
        held.held = False
        held.acknowledge_all()
        await asyncio.sleep(2)
        first.saw(3)
        await asyncio.sleep(2)
        assert blocks(first.shipped) == ["g/a/1", "g/a/3"]
        tasks[0].cancel()
        first.saw(4)
        first.journal.close()
        await asyncio.sleep(61)
        assert blocks(second.shipped) == ["g/b/2", "g/a/4"]
        assert list(tmp_path.glob("*")) == []
        tasks[1].cancel()

    run(scenario())


def test_nothing_ends_the_shipping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        scene = Scene(tmp_path, "b", FakeProducer(partitions=1))
        task = asyncio.create_task(scene.acks.follow())

        def broken() -> list[Segment]:
            raise RuntimeError("for once")

        scene.saw(1)
        with monkeypatch.context() as patched:
            patched.setattr(scene.journal, "take", broken)
            await asyncio.sleep(3)
        assert scene.shipped == []
        await asyncio.sleep(2)
        assert blocks(scene.shipped) == ["g/b/1"]
        task.cancel()

    run(scenario())


def test_what_kafka_does_not_take_waits_in_its_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        producer = FakeProducer(partitions=None)
        left = Scene(tmp_path, "dead", producer)
        left.saw(1)
        left.journal.close()
        scene = Scene(tmp_path, "b", producer)
        task = asyncio.create_task(scene.acks.follow())
        scene.saw(2)
        await asyncio.sleep(5)
        producer.held, producer.partitions = True, 1
        await asyncio.sleep(1)
        assert not scene.acks.not_taken.is_set()
        producer.fail(0)
        await asyncio.sleep(1)
        assert scene.acks.not_taken.is_set()
        producer.held = False
        producer.acknowledge_all()
        await asyncio.sleep(5)
        assert blocks(scene.shipped)[0] == "g/dead/1"
        assert set(blocks(scene.shipped)) == {"g/dead/1", "g/b/2"}
        assert list(tmp_path.glob("*")) == []
        task.cancel()

    run(scenario())


def test_an_orderly_end_ships_the_last_lines_or_leaves_them(tmp_path: Path) -> None:
    async def scenario(held: bool) -> list[str]:
        scene = Scene(tmp_path / str(held), "b", FakeProducer(partitions=1, held=held))
        scene.saw(1)
        await scene.acks.stop()
        return [path.name for path in (tmp_path / str(held)).glob("*")]

    assert run(scenario(False)) == []
    (left,) = run(scenario(True))
    assert left.startswith("acks-b-")


class Topic:
    """Answers with its id, when it is told to."""

    def __init__(self) -> None:
        self.id = "topic"
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def ask(self) -> str:
        self.asked += 1
        found = self.id
        await self.answers.wait()
        return found


def topics(scene: Scene) -> list[str]:
    return [ack.topic_id for ack in scene.shipped if ack]


@pytest.mark.parametrize("newest", [7, 0])
def test_offsets_that_do_not_rise_are_those_of_another_topic(tmp_path: Path, newest: int) -> None:
    async def scenario() -> None:
        scene, topic = Scene(tmp_path, "b", FakeProducer(partitions=2)), Topic()
        task = asyncio.create_task(scene.acks.watch_topic(topic.ask))
        scene.saw(1, offset=newest)
        scene.saw(2, partition=1, offset=3)
        scene.saw(3, offset=-1)
        await settle()
        assert topic.asked == 0
        topic.id = "again"
        scene.saw(4, offset=0)
        await settle()
        scene.saw(5, partition=1, offset=1)
        await scene.acks.stop()
        assert topics(scene) == ["topic", "topic", "", "", "again"]
        task.cancel()

    run(scenario())


def test_another_topic_is_noticed_within_seconds_whatever_its_offsets(tmp_path: Path) -> None:
    async def scenario() -> None:
        scene, topic = Scene(tmp_path, "b", FakeProducer(partitions=1)), Topic()
        task = asyncio.create_task(scene.acks.watch_topic(topic.ask))
        scene.saw(1, offset=10)
        topic.id = ""
        await asyncio.sleep(61)
        scene.saw(2, offset=11)
        # Others have written more into it than into the one before.
        topic.id = "again"
        await asyncio.sleep(30)
        scene.saw(3, offset=100)
        await asyncio.sleep(30)
        scene.saw(4, offset=101)
        await scene.acks.stop()
        assert topics(scene) == ["topic", "topic", "again", "again"]
        task.cancel()

    run(scenario())


def test_an_answer_of_before_the_offsets_fell_does_not_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        scene, topic = Scene(tmp_path, "b", FakeProducer(partitions=1)), Topic()
        task = asyncio.create_task(scene.acks.watch_topic(topic.ask))
        scene.saw(1, offset=10)
        topic.answers.clear()
        await asyncio.sleep(30)
        assert topic.asked == 1
        topic.id = "again"
        scene.saw(2, offset=0)
        topic.answers.set()
        await settle()
        scene.saw(3, offset=1)
        await scene.acks.stop()
        assert topics(scene) == ["topic", "", "again"]
        task.cancel()

    run(scenario())


def test_a_damaged_line_is_no_acknowledgement() -> None:
    assert list(read_acks([b"\n{}\nnonsense\n", b"\xff", b""])) == [None, None, None]
