"""HTTP on the way in and out: status, answer, headers."""

from __future__ import annotations

import asyncio
import gzip
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dc_platform.errors import BrokerUnavailableError, StoreUnavailableError
from dc_platform.gateway.auth import KeyRing
from dc_platform.gateway.routes import Doors
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.settings import Settings
from dc_platform_tests.gateway.producers import FakeProducer
from dc_platform_tests.gateway.test_ingest import GOOD, Gateway
from dc_platform_tests.helpers.asgi import client_of

EVENTS = "/api/v1/events"
BATCH = "/api/v1/events/batch"
LIMIT = 5000


class Door:
    """The gateway's routes as one source sees them."""

    def __init__(self, app: FastAPI, sources: Sources) -> None:
        made, self.key = sources.create("s", SourceType.SERVER)
        self.source_id = made.source_id
        self.ring = KeyRing(sources, refresh_seconds=60)
        self.ring.refresh()
        self.app = app
        self.gateway: Gateway

    def post(self, content: Any, path: str = EVENTS, **headers: str) -> httpx.Response:
        """One request to a gateway that has just started."""

        async def ask() -> httpx.Response:
            self.gateway = Gateway()
            settings = Settings(max_body_bytes=LIMIT, max_decompressed_bytes=LIMIT)
            self.app.state.doors = Doors(settings, self.ring, self.gateway.ingest)
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async with client_of(self.app) as client:
                return await client.post(
                    path, content=content, headers={"X-API-Key": self.key, **named}
                )

        return asyncio.run(ask())

    @property
    def producer(self) -> FakeProducer:
        return self.gateway.producer


@pytest.fixture
def door(app: FastAPI, sources: Sources) -> Door:
    return Door(app, sources)


def test_accepted_rejected_and_errors(door: Door) -> None:
    answer = door.post(b'{"events":[%s,{"payload":{}},%s]}' % (GOOD, GOOD))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    content = answer.json()
    assert content.keys() == {"accepted", "rejected", "errors"}
    assert (content["accepted"], content["rejected"]) == (2, 1)
    (error,) = content["errors"]
    assert error.keys() == {"index", "code", "message"}
    assert (error["index"], error["code"]) == (1, "missing_field")
    assert {e["sourceId"] for e in door.gateway.accepted()} == {door.source_id}


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"", {}, 400, "malformed_json"),
        (b"{", {}, 400, "malformed_json"),
        (b"\xff", {}, 400, "not_utf8"),
        (b"{}", {"Content_Encoding": "br"}, 400, "bad_compression"),
        (b"{}", {"Content_Encoding": "gzip"}, 400, "bad_compression"),
        (b"x" * (LIMIT + 1), {}, 413, "body_too_large"),
        (
            gzip.compress(bytes(LIMIT + 1), mtime=0),
            {"Content_Encoding": "gzip"},
            413,
            "body_too_large",
        ),
    ],
)
def test_a_body_without_events_is_one_rejection_that_kafka_has(
    door: Door, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = door.post(content, **headers)
    assert answer.status_code == status
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (0, 1)
    assert [(e["index"], e["code"]) for e in answer.json()["errors"]] == [(0, code)]
    (row,) = door.gateway.rejected()
    assert (row["reason"], row["raw"]) == (code, content)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " x-gzip "])
def test_a_compressed_body_is_understood(door: Door, encoding: str) -> None:
    answer = door.post(gzip.compress(b"[%s]" % GOOD), Content_Encoding=encoding)
    assert answer.json()["accepted"] == 1


def test_a_body_in_chunks_without_a_length(door: Door) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in b"[%s]" % GOOD:
            yield bytes([byte])

    assert door.post(chunks()).json()["accepted"] == 1

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    answer = door.post(endless())
    assert answer.status_code == 413
    assert answer.headers["Connection"] == "close"


def test_who_may_not_write_is_told_and_nothing_is_kept(door: Door) -> None:
    body = b"[%s]" % GOOD
    for status, code, headers in (
        (401, "unauthorized", {"X_API_Key": "wrong"}),
        (401, "unauthorized", {"X_API_Key": ""}),
        (403, "source_mismatch", {"X_Source_Id": str(uuid.uuid4())}),
    ):
        answer = door.post(body, **headers)
        assert answer.status_code == status
        assert (answer.json()["accepted"], answer.json()["rejected"]) == (0, 0)
        assert answer.json()["errors"][0]["code"] == code
        assert door.producer.records == []


@pytest.mark.parametrize("path", [EVENTS, BATCH])
def test_when_kafka_is_away_it_is_503_with_retry_after(
    door: Door, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise BrokerUnavailableError("Kafka is away")

    monkeypatch.setattr(FakeProducer, "send", fail)
    for body in (b"[%s]" % GOOD, b"{", b"x" * (LIMIT + 1)):
        answer = door.post(body, path)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["accepted"] == answer.json()["rejected"] == 0
        assert answer.json()["errors"][0]["code"] == "unavailable"


def test_a_key_that_cannot_be_looked_up_is_503(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise StoreUnavailableError("the registry is away")

    monkeypatch.setattr(door.ring, "refresh", away)
    assert door.post(b"[%s]" % GOOD).status_code == 200
    answer = door.post(b"[%s]" % GOOD, X_API_Key="dck_made_just_now")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize(("key", "status"), [("", 400), ("k" * 256, 200), ("k" * 257, 400)])
def test_the_length_of_an_idempotency_key(door: Door, key: str, status: int) -> None:
    assert door.post(b"[%s]" % GOOD, Idempotency_Key=key).status_code == status


def test_a_batch_has_an_id_that_its_blocks_carry(door: Door) -> None:
    content = b"\n".join([GOOD] * 3 + [b"{"])
    answer = door.post(content, BATCH, Content_Type="application/x-ndjson")
    assert answer.status_code == 200
    batch_id = answer.json()["batchId"]
    assert str(uuid.UUID(batch_id)) == batch_id
    assert answer.json()["status"] == "accepted"
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (3, 1)
    assert [r.headers["dcp-batch"].decode() for r in door.producer.records] == [batch_id] * 2
    refused = door.post(b"[{}]", BATCH)
    assert refused.json()["status"] == "rejected"
    broken = door.post(b"{", BATCH)
    assert broken.status_code == 400
    (record,) = door.producer.records
    assert record.headers["dcp-batch"].decode() == broken.json()["batchId"]


def test_a_batch_that_is_sent_again_with_its_key_has_its_id_again(door: Door) -> None:
    def batch_id(**headers: str) -> str:
        return str(door.post(b"[%s]" % GOOD, BATCH, **headers).json()["batchId"])

    assert batch_id(Idempotency_Key="k") == batch_id(Idempotency_Key="k")
    assert batch_id(Idempotency_Key="k") != batch_id(Idempotency_Key="l")
    assert batch_id() != batch_id()


def test_a_client_that_goes_away_with_half_a_body_is_no_error(door: Door) -> None:
    door.post(b"[]")
    messages = [
        {"type": "http.request", "body": b'{"events": [', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": EVENTS,
        "headers": [(b"x-api-key", door.key.encode())],
        "query_string": b"",
    }
    asyncio.run(door.app(scope, receive, send))
    assert door.producer.records == []
    assert json.loads(sent[1]["body"])["accepted"] == 0
