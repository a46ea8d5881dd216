"""Whatever is sent: a clear answer, every byte of a known source kept, no neighbour lost.

The same stack gets all of it; good events are mixed in and must all be there at the end.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import uuid
from typing import Any

import httpx
import pytest

from dc_platform.broker.client import RecordWriter
from dc_platform.contracts import blocks
from dc_platform_tests.e2e.platform import Platform, Source, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]


class Client:
    """Sends to the gateway as one source, and asks what became of it."""

    def __init__(self, platform: Platform, token: str) -> None:
        self.platform = platform
        self.token = token
        self.source: Source = platform.source(f"bad-{uuid.uuid4().hex[:8]}")

    def post(self, content: bytes, **headers: str) -> httpx.Response:
        return httpx.post(
            f"{self.platform.info['gateway']}/api/v1/events",
            content=content,
            headers={"X-API-Key": self.source.key, **{_name(k): v for k, v in headers.items()}},
            timeout=60,
        )

    def quarantined(self, expected: int) -> list[dict[str, Any]]:
        """Rows of quarantine of this source, once there are so many."""
        sql = (
            "select reason, message, raw_length, raw_sha256, octet_length(raw) as kept,"
            f" request_index from silver.quarantine where source_id = '{self.source.source_id}'"
        )

        def found() -> list[dict[str, Any]] | None:
            rows = self.platform.rows(sql, self.token)
            return rows if len(rows) >= expected else None

        rows: list[dict[str, Any]] = wait_for(found, 90, f"{expected} rows in quarantine")
        return rows

    def landed(self, expected: int) -> int:
        sql = f"select count(*) as n from silver.events where source_id = '{self.source.source_id}'"

        def found() -> int | None:
            n = int(self.platform.rows(sql, self.token)[0]["n"])
            return n if n >= expected else None

        count: int = wait_for(found, 90, f"{expected} events in silver")
        return count


def _name(keyword: str) -> str:
    return keyword.replace("_", "-")


@pytest.fixture
def client(platform: Platform, query_token: str) -> Client:
    return Client(platform, query_token)


GOOD = {"eventType": "good", "payload": {"ok": True}}


def test_bad_events_beside_good_ones_are_named_and_kept(client: Client) -> None:
    ahead = int(time.time() * 1000) + 3_700_000
    bad: list[tuple[Any, str]] = [
        ({"payload": {}}, "missing_field"),
        ({"eventType": "x"}, "missing_field"),
        ({"eventType": 3, "payload": {}}, "wrong_type"),
        ({"eventType": "x", "payload": []}, "wrong_type"),
        ({"eventType": "x", "payload": {}, "timestamp": "yesterday"}, "wrong_type"),
        ({"eventType": "x", "payload": {}, "timestamp": ahead}, "timestamp_in_future"),
        ({"eventType": "x" * 300, "payload": {}}, "value_out_of_range"),
        ({"eventType": "x", "payload": {}, "sourceId": str(uuid.uuid4())}, "source_mismatch"),
        ({"eventType": "x", "payload": {"big": "y" * 1_100_000}}, "event_too_large"),
        (["not", "an", "object"], "not_an_object"),
    ]
    events = [e for pair in bad for e in (GOOD, pair[0])]
    answer = client.post(json.dumps({"events": events}).encode())
    assert answer.status_code == 200
    content = answer.json()
    assert (content["accepted"], content["rejected"]) == (len(bad), len(bad))
    assert [(e["index"], e["code"]) for e in content["errors"]] == [
        (2 * i + 1, code) for i, (_, code) in enumerate(bad)
    ]
    assert all(len(e["message"]) > 20 for e in content["errors"])
    rows = client.quarantined(len(bad))
    assert sorted(r["reason"] for r in rows) == sorted(code for _, code in bad)
    assert all(r["kept"] == r["raw_length"] for r in rows)
    assert client.landed(len(bad)) == len(bad)


def test_bodies_that_hold_no_events_are_answered_and_kept(client: Client) -> None:
    whole = b'{"events": [{"eventType": "x", "payload": '
    cases: list[tuple[bytes, dict[str, str], int, str]] = [
        (whole, {}, 400, "malformed_json"),
        (b"", {}, 400, "malformed_json"),
        (b'{"events": [{"eventType": "\xff", "payload": {}}]}', {}, 200, "not_utf8"),
        (b"\xfe\xff\x00", {}, 400, "not_utf8"),
        (b"no gzip at all", {"Content_Encoding": "gzip"}, 400, "bad_compression"),
        (gzip.compress(whole)[:-5], {"Content_Encoding": "gzip"}, 400, "bad_compression"),
        (b"{}", {"Content_Encoding": "br"}, 400, "bad_compression"),
        (gzip.compress(bytes(80 * 2**20)), {"Content_Encoding": "gzip"}, 413, "body_too_large"),
        (b"[" * 100_000 + b"]" * 100_000, {}, 400, "too_deep"),
    ]
    for content, headers, status, code in cases:
        answer = client.post(content, **headers)
        assert answer.status_code == status, (content[:40], answer.text)
        assert answer.json()["errors"][0]["code"] == code, (content[:40], answer.text)
        assert answer.json()["rejected"] == 1
    rows = client.quarantined(len(cases))
    sent = {hashlib.sha256(content).hexdigest() for content, _, _, code in cases}
    in_request = {r["raw_sha256"] for r in rows}
    # One of them is an event of a body that can be read: its own bytes are kept.
    assert len(sent & in_request) == len(cases) - 1
    assert all(r["kept"] == r["raw_length"] for r in rows)


def test_a_body_over_the_limit_is_kept_in_part_with_length_and_hash(client: Client) -> None:
    body = b"z" * (10 * 2**20 + 1)
    answer = client.post(body)
    assert answer.status_code == 413
    (row,) = client.quarantined(1)
    assert row["reason"] == "body_too_large"
    assert row["raw_length"] == len(body)
    assert row["raw_sha256"] == hashlib.sha256(body).hexdigest()
    assert row["kept"] == 64 * 1024


def test_the_same_rejected_bytes_are_one_row(client: Client) -> None:
    for _ in range(3):
        assert client.post(b"nope").status_code == 400
    assert client.post(b"nope, other").status_code == 400
    rows = client.quarantined(2)
    time.sleep(3)
    assert len(client.quarantined(2)) == len(rows) == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "dck_wrong"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"Authorization": "Bearer nothing"}, 401),
        ({"Authorization": "Basic !!!"}, 401),
    ],
)
def test_without_a_key_nothing_is_accepted(
    platform: Platform, headers: dict[str, str], status: int
) -> None:
    url = f"{platform.info['gateway']}/api/v1/events"
    answer = httpx.post(url, json={"events": [GOOD]}, headers=headers)
    assert answer.status_code == status
    assert answer.json()["accepted"] == 0
    assert answer.json()["errors"][0]["message"]


def test_a_query_token_never_writes(platform: Platform, query_token: str) -> None:
    url = f"{platform.info['gateway']}/api/v1/events"
    headers = {"Authorization": f"Bearer {query_token}"}
    assert httpx.post(url, json={"events": [GOOD]}, headers=headers).status_code == 401


def test_the_key_alone_decides_and_names_its_source(client: Client) -> None:
    content = json.dumps({"events": [GOOD]}).encode()
    other = client.platform.source("other")
    assert client.post(content, X_Source_Id=other.source_id).status_code == 403
    assert client.post(content, Authorization=f"Bearer {other.key}").status_code == 200
    assert client.post(content, X_Source_Id=client.source.source_id.upper()).status_code == 200
    assert client.landed(2) == 2


def test_records_of_strangers_are_judged_one_by_one(client: Client) -> None:
    info = client.platform.info
    writer = RecordWriter(info["kafka"], info["topic"])
    good = {**GOOD, "sourceId": client.source.source_id}
    unknown = str(uuid.uuid4())
    values: list[tuple[bytes, list[tuple[str, bytes]]]] = [
        (json.dumps(good).encode(), []),
        (b"\x00\x01 not text \xff", []),
        (b"\n".join([json.dumps(good).encode(), b"{broken", json.dumps(good).encode()]), []),
        (json.dumps({**GOOD, "sourceId": unknown}).encode(), []),
        (json.dumps(GOOD).encode(), []),
        (b"", []),
        (b"avro", [(blocks.CONTENT_TYPE, b"application/avro")]),
        (b"no arrow", [(blocks.CONTENT_TYPE, blocks.ARROW.encode())]),
        (
            b"forged\n" + json.dumps(good).encode(),
            [
                (blocks.CONTENT_TYPE, blocks.NDJSON.encode()),
                (blocks.BLOCK, b"somebody/1/1"),
                (blocks.VERDICT, b"valid"),
            ],
        ),
        (json.dumps(good).encode(), [(blocks.CONTENT_TYPE, b"\xff\xfe")]),
    ]
    offsets = [writer.write(v, partition=0, headers=h).get(timeout=30).offset for v, h in values]
    writer.write(None, key=b"tombstone", partition=0)
    writer.close()
    # One alone, two beside a broken line, one beside a forgery.
    assert client.landed(4) == 4
    where = f"kafka_partition = 0 and kafka_offset between {offsets[0]} and {offsets[-1]}"
    rows = client.platform.rows(
        f"select kafka_offset, reason from silver.quarantine where {where} order by 1", client.token
    )
    expected = [
        (offsets[1], "not_utf8"),
        (offsets[2], "malformed_json"),
        (offsets[3], "unknown_source"),
        (offsets[4], "missing_field"),
        (offsets[6], "unsupported_content_type"),
        (offsets[7], "undecodable_block"),
        (offsets[8], "malformed_json"),
        (offsets[9], "unsupported_content_type"),
    ]
    assert [(r["kafka_offset"], r["reason"]) for r in rows] == expected


def test_strangers_may_compress_as_they_like(client: Client) -> None:
    info = client.platform.info
    codecs = (None, "gzip", "snappy", "lz4", "zstd")
    line = json.dumps({**GOOD, "sourceId": client.source.source_id, "payload": {"t": "x" * 2000}})
    for codec in codecs:
        writer = RecordWriter(info["kafka"], info["topic"], compression=codec)
        writer.write("\n".join([line] * 1000).encode())
        writer.close()
    assert client.landed(1000 * len(codecs)) == 1000 * len(codecs)
