"""What the gateway writes down about each block, and how that gets to Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from dc_platform.broker.producer import BlockProducer
from dc_platform.broker.records import Acknowledged
from dc_platform.contracts.acks import Ack, Count, hour_of, read_acks
from dc_platform.contracts.blocks import BlockId
from dc_platform.gateway.acks import Acks
from dc_platform.gateway.journal import Journal
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


def test_offsets_that_fall_are_those_of_another_topic(tmp_path: Path) -> None:
    async def scenario() -> None:
        scene = Scene(tmp_path, "b", FakeProducer(partitions=2))
        scene.saw(1, offset=7)
        scene.saw(2, partition=1, offset=3)
        scene.saw(3, offset=-1)
        assert not scene.acks.topic_unknown.is_set()
        scene.saw(4, offset=0)
        assert scene.acks.topic_unknown.is_set()
        scene.acks.topic_id = "again"
        scene.saw(5, partition=1, offset=1)
        await scene.acks.stop()
        assert [ack.topic_id for ack in scene.shipped if ack] == ["topic", "topic", "", "", "again"]

    run(scenario())


def test_a_damaged_line_is_no_acknowledgement() -> None:
    assert list(read_acks([b"\n{}\nnonsense\n", b"\xff", b""])) == [None, None, None]
