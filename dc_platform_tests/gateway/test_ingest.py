"""The protocol-free way in: verdicts, ids, what goes to Kafka, and when it is answered."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import uuid
import warnings
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pyarrow as pa
import pytest

from dc_platform.broker.records import MAX_RECORD_BYTES
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import Rejected
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import OVERSIZE_KEPT_BYTES
from dc_platform.errors import BrokerUnavailableError
from dc_platform.gateway.activity import ActivityLog
from dc_platform.gateway.ingest import Ingest, IngestLimits, Outcome
from dc_platform.gateway.pressure import Circuit, EventQueue, OverloadedError
from dc_platform.registry.sources import KeyOwner, Sources
from dc_platform_tests.gateway.batching import batcher_of
from dc_platform_tests.gateway.producers import FakeProducer, Sent
from dc_platform_tests.helpers.virtual_time import run, settle

SOURCE = "5f6dd7a5-6a43-4f0b-9a39-1d2b9fbd2a10"
OWNER = KeyOwner(SOURCE, "acme", True)
NOW = 1_764_000_000_000
GOOD = b'{"eventType":"a","payload":{"n":1.10}}'


class Gateway:
    """An `Ingest` over a producer in memory."""

    def __init__(self, *, held: bool = False, queue_events: int = 10_000) -> None:
        self.producer = FakeProducer(held=held)
        self.activity = ActivityLog(cast(Sources, None))
        self.queue = EventQueue(limit=queue_events, slowdown=0.8, slow_rate=1000, patience=10)
        self.circuit = Circuit(failures=5, seconds=60, probe=self._probe)
        self.ingest = Ingest(
            batcher_of(self.producer),
            self.queue,
            self.circuit,
            self.activity,
            IngestLimits(future_limit_ms=3_600_000, max_event_bytes=1000, ack_timeout_seconds=10),
            clock=lambda: NOW,
        )

    async def _probe(self) -> bool:
        return False

    async def take(self, events: Sequence[bytes], **options: Any) -> Outcome:
        options.setdefault("request_sha256", hashlib.sha256(b"".join(events)).hexdigest())
        return await self.ingest.events(OWNER, events, **options)

    def accepted(self) -> list[dict[str, Any]]:
        """The events of the valid blocks."""
        valid = [r for r in self.producer.records if _verdict(r) == blocks.VALID]
        return [msgspec.json.decode(line) for record in valid for line in record.lines]

    def rejected(self) -> list[dict[str, Any]]:
        """The rows of the blocks of rejects."""
        found = [r for r in self.producer.records if _verdict(r) == blocks.REJECTED]
        return [row for r in found for row in pa.ipc.open_stream(r.value).read_all().to_pylist()]


def _verdict(record: Sent) -> str:
    return record.headers[blocks.VERDICT].decode()


def event(**members: Any) -> bytes:
    return msgspec.json.encode({"eventType": "a", "payload": {}, **members})


def test_each_event_has_its_verdict_at_its_index() -> None:
    future = event(timestamp=NOW + 3_600_001)
    foreign = event(sourceId=str(uuid.uuid4()))
    sent = [GOOD, b"{", future, event(timestamp=NOW + 3_600_000), foreign, b'"\xff"', GOOD]

    async def scenario() -> None:
        gateway = Gateway()
        outcome = await gateway.take(sent)
        assert outcome.accepted == 3
        assert [(e["index"], e["code"]) for e in outcome.errors] == [
            (1, "malformed_json"),
            (2, "timestamp_in_future"),
            (4, "source_mismatch"),
            (5, "not_utf8"),
        ]
        assert all(len(str(e["message"])) > 20 for e in outcome.errors)
        rows = gateway.rejected()
        assert [row["raw"] for row in rows] == [sent[i] for i in (1, 2, 4, 5)]
        assert [row["request_index"] for row in rows] == [1, 2, 4, 5]
        assert [row["reason"] for row in rows] == [e["code"] for e in outcome.errors]
        assert {row["source_id"] for row in rows} == {SOURCE}
        assert len(gateway.accepted()) == 3
        assert {r.headers[blocks.TENANT] for r in gateway.producer.records} == {b"acme"}
        assert (gateway.activity.accepted, gateway.activity.rejected) == (3, 4)

    run(scenario())


def test_events_get_their_identity_and_keep_their_bytes() -> None:
    own = str(uuid.uuid4())

    async def scenario() -> None:
        gateway = Gateway()
        await gateway.take([event(eventId=own.upper()), event(eventId="order-7"), GOOD, GOOD])
        by_uuid, by_text, first, second = gateway.accepted()
        assert by_uuid["eventId"] == own
        assert by_text["eventId"] == identity.event_id_from_text(SOURCE, "order-7")[0]
        assert by_text["metadata"]["clientEventId"] == "order-7"
        assert first["eventId"] != second["eventId"]
        assert all(e["sourceId"] == SOURCE for e in gateway.accepted())
        assert first["metadata"]["receivedAt"] == NOW
        assert "timestamp" not in first
        assert b'"payload":{"n":1.10}}' in gateway.producer.records[0].value

    run(scenario())


def test_a_request_with_a_key_has_the_same_ids_again() -> None:
    async def scenario() -> None:
        gateway = Gateway()
        for _ in range(2):
            await gateway.take([GOOD, b"{", event(eventId="own")], idempotency_key="k")
        await gateway.take([GOOD], idempotency_key="other")
        ids = [e["eventId"] for e in gateway.accepted()]
        assert (
            ids[:2]
            == ids[2:4]
            == [
                identity.event_id_from_key(SOURCE, "k", 0),
                identity.event_id_from_text(SOURCE, "own")[0],
            ]
        )
        assert ids[4] not in ids[:4]
        # The rejected event is the same row of quarantine again.
        first, second = gateway.rejected()
        assert first == second

    run(scenario())


def test_the_answer_waits_for_kafka_to_have_accepted_and_rejected_events() -> None:
    async def scenario() -> None:
        gateway = Gateway(held=True)
        task = asyncio.create_task(gateway.take([GOOD, b"{"]))
        await settle()
        assert [_verdict(r) for r in gateway.producer.records] == ["valid", "rejected"] or [
            _verdict(r) for r in gateway.producer.records
        ] == ["rejected", "valid"]
        assert gateway.queue.waiting == 2
        gateway.producer.acknowledge(0)
        await settle()
        assert not task.done()
        assert (gateway.activity.accepted, gateway.activity.rejected) == (0, 0)
        gateway.producer.acknowledge(1)
        assert (await task).accepted == 1
        assert gateway.queue.waiting == 0
        assert (gateway.activity.accepted, gateway.activity.rejected) == (1, 1)

    run(scenario())


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_of_either_is_a_failure_of_the_request(failing: int) -> None:
    async def scenario() -> None:
        gateway = Gateway(held=True)
        task = asyncio.create_task(gateway.take([GOOD, b"{"]))
        await settle()
        gateway.producer.acknowledge(1 - failing)
        gateway.producer.fail(failing)
        with pytest.raises(BrokerUnavailableError):
            await task
        assert gateway.activity.accepted == 0
        assert gateway.queue.waiting == 0

    run(scenario())


def test_without_an_acknowledgement_it_gives_up_and_five_times_open_the_circuit() -> None:
    async def scenario() -> None:
        gateway = Gateway(held=True)
        loop = asyncio.get_running_loop()
        for _ in range(5):
            assert gateway.circuit.state == "closed"
            began = loop.time()
            with pytest.raises(BrokerUnavailableError):
                await gateway.take([GOOD, b"{"])
            assert loop.time() - began == pytest.approx(10)
            assert gateway.queue.waiting == 0
        assert gateway.circuit.state == "open"
        began, records = loop.time(), len(gateway.producer.records)
        with pytest.raises(BrokerUnavailableError):
            await gateway.take([GOOD])
        assert (loop.time(), len(gateway.producer.records)) == (began, records)

    run(scenario())


def test_what_is_refused_before_it_was_sent_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        gateway = Gateway(held=True, queue_events=10)
        task = asyncio.create_task(gateway.take([GOOD] * 8))
        await settle()
        with pytest.raises(OverloadedError):
            await gateway.take([GOOD] * 5 + [b"{"])
        assert gateway.circuit.state == "closed"
        with pytest.raises(BrokerUnavailableError):
            await task

    with warnings.catch_warnings():
        # A coroutine that was never awaited.
        warnings.simplefilter("error")
        run(scenario())
        gc.collect()


def test_no_event_is_no_record() -> None:
    async def scenario() -> None:
        gateway = Gateway()
        assert (await gateway.take([])).accepted == 0
        assert gateway.producer.records == []

    run(scenario())


def test_what_no_record_could_hold_is_kept_in_part_with_length_and_hash() -> None:
    """Once such an event was answered with 503, however often it was sent."""
    huge = b'{"eventType":"' + b"x" * (MAX_RECORD_BYTES + 1) + b'"}'

    async def scenario() -> None:
        gateway = Gateway()
        outcome = await gateway.take([GOOD, huge])
        assert outcome.accepted == 1
        assert outcome.rejects[0].reason is Reason.EVENT_TOO_LARGE
        verdict = Rejected(Reason.MALFORMED_JSON, "the body is no JSON")
        digest = hashlib.sha256(huge).hexdigest()
        await gateway.ingest.reject_body(
            OWNER, verdict, huge, len(huge), digest, batch_id="batch-1"
        )
        for row in gateway.rejected():
            assert row["raw"] == huge[:OVERSIZE_KEPT_BYTES]
            assert (row["raw_length"], row["raw_sha256"]) == (len(huge), digest)
        assert len(gateway.rejected()) == 2
        assert gateway.producer.records[-1].headers[blocks.BATCH] == b"batch-1"

    run(scenario())


def test_many_and_large_rejects_are_several_records() -> None:
    sent = [b"{"] * 2500 + [b"x" * 400_000] * 5

    async def scenario() -> None:
        gateway = Gateway()
        await gateway.take(sent)
        counts = [record.counts[SOURCE] for record in gateway.producer.records]
        assert counts == [1000, 1000, 502, 2, 1]
        assert [row["raw"] for row in gateway.rejected()] == sent
        assert [row["request_index"] for row in gateway.rejected()] == list(range(len(sent)))

    run(scenario())
