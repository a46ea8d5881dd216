"""The property that matters most: columns and the strict judge give the same rows.

A gateway's block is read in columns, a million events a second; a line that looks odd goes to the
strict judge alone. Which of the two read an event must not show in any column of it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.broker.records import Record, Records
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS, Passed, is_json
from dc_platform.contracts.requests import events_of
from dc_platform.decode.blocks import read_blocks
from dc_platform.decode.columns import AnySource, plain
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Line, Policy, read_lines
from dc_platform_tests.helpers.events import HOUR, NOW, TRAPS, client_ids, events, quote
from dc_platform_tests.helpers.records import NEVER, SOURCE, TOPIC_ID, block, gateway_line, rows

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
CONNECTION = duckdb.connect(config={"threads": 1})
DECODER = Decoder(TOPIC_ID, AnySource(), Policy(late_ms=NEVER))


def in_columns(records: list[Record]) -> tuple[list[dict[str, Any]], list[bool]]:
    table, ok, _ = read_blocks(CONNECTION, Records.of(records), TOPIC_ID)
    return rows(plain(table)), [bool(o) for o in ok]


def strictly(records: list[Record]) -> list[dict[str, Any]]:
    lines = [
        Line(row, index, raw)
        for row, record in enumerate(records)
        for index, raw in enumerate(part for part in record.value.split(b"\n") if part)
    ]
    table = read_lines(lines, records, topic_id=TOPIC_ID, sources=AnySource(), policy=Policy())
    return rows(plain(table))


def first_mark_is_the_payload(line: bytes) -> bool:
    """A tag or an unknown member named `payload` makes a line look odd: the strict judge's case."""
    return is_json(line[: line.index(b',"payload":')] + b"}")


def assert_alike(records: list[Record]) -> None:
    columns, ok = in_columns(records)
    strict = strictly(records)
    assert len(columns) == len(strict)
    for column_row, strict_row, fine in zip(columns, strict, ok, strict=True):
        assert strict_row["verdict"] == blocks.VALID, strict_row["message"]
        if fine:
            assert column_row == strict_row
    assert ok == [first_mark_is_the_payload(row["raw"]) for row in strict]
    judged = rows(plain(DECODER.decode(records)))
    assert judged == strict


flags = st.sampled_from(("warn:a.b:range", "anomaly:é", "warn:,payload:,:length", "late"))
passed = st.none() | st.builds(
    Passed,
    st.sampled_from(("5f0c2f6e-6b0e-4a9b-8c64-3f1f3a1f6d10/3", "s/12")),
    st.lists(flags, max_size=3).map(tuple),
)
sources = st.sampled_from((SOURCE, "sensor-1", 'a,"payload":{', "é" * 128))


@st.composite
def lines(draw: st.DrawFn, *, unknown: bool) -> bytes:
    """A gateway's line of an arbitrary event, through the gateway's own functions."""
    source = draw(sources)
    named = draw(st.booleans())
    event = draw(events(source_id=source if named else None, unknown=unknown))
    found = events_of(b'{"events":[' + event + b"]}", "application/json")
    assert isinstance(found, list)
    key = draw(st.none() | st.just("k"))
    return gateway_line(found[0], source_id=source, key=key, judged=draw(passed))


@st.composite
def records(draw: st.DrawFn, *, unknown: bool) -> list[Record]:
    """Blocks of a few partitions and tenants."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    return [
        block(
            [draw(lines(unknown=unknown)) for _ in range(size)],
            offset,
            partition=offset % 2,
            timestamp_ms=draw(st.sampled_from((0, NOW, NOW + 1, MAX_TIMESTAMP_MS))),
            tenant=draw(st.sampled_from(("default", "tenant é"))),
            batch_id=draw(st.none() | st.just("b")),
        )
        for offset, size in enumerate(sizes)
    ]


def in_address_order(found: list[Record]) -> list[Record]:
    return sorted(found, key=lambda record: (record.partition, record.offset))


@given(records(unknown=False))
@settings(max_examples=80)
def test_events_with_known_members_are_read_in_columns_alike(found: list[Record]) -> None:
    assert_alike(in_address_order(found))


@given(records(unknown=True))
@settings(max_examples=80)
def test_events_with_any_members_are_read_alike(found: list[Record]) -> None:
    assert_alike(in_address_order(found))


@pytest.mark.parametrize("trap", TRAPS)
def test_texts_that_look_like_marks_are_read_in_columns(trap: str) -> None:
    text = quote(trap)
    event = (
        f'{{"eventType":{quote("t" + trap)},"eventId":{text},"metadata":{{"version":{text},'
        f'"tags":{{{text}:{text}}}}},"payload":{{{text}:{text}}}}}'
    ).encode()
    found = [block([gateway_line(event)])]
    assert_alike(found)
    row = in_columns(found)[0][0]
    assert row["client_event_id"] == trap
    assert row["tags"] == [(trap, trap)]
    assert row["payload"] == f"{{{text}:{text}}}"


@pytest.mark.parametrize(
    "timestamp",
    [MIN_TIMESTAMP_MS, -HOUR - 1, -HOUR, -1, 0, 1, HOUR - 1, HOUR, NOW, NOW + HOUR],
)
def test_times_and_scopes_at_the_borders(timestamp: int) -> None:
    event = f'{{"eventType":"t","timestamp":{timestamp},"payload":{{}}}}'.encode()
    found = [block([gateway_line(event)])]
    assert_alike(found)
    row = in_columns(found)[0][0]
    assert row["dedup_scope"] == timestamp // HOUR
    assert row["event_time"] - EPOCH == timedelta(milliseconds=timestamp)


@given(st.lists(client_ids, min_size=1, max_size=30))
@settings(max_examples=30)
def test_every_client_id_keeps_its_identity(ids: list[str]) -> None:
    event = '{"eventType":"t","eventId":%s,"payload":{}}'
    found = [block([gateway_line((event % quote(client_id)).encode()) for client_id in ids])]
    assert_alike(found)
    read = [(row["event_id"], row["client_event_id"]) for row in in_columns(found)[0]]
    assert read == [identity.event_id_from_text(SOURCE, client_id) for client_id in ids]


def test_payload_bytes_stay_as_they_were_sent() -> None:
    payload = b'{"price":1.10, "a":1e999,"a":2,"u":"\\u00e9\\/","n":' + b"7" * 50 + b"}"
    found = [block([gateway_line(b'{"eventType":"t","payload":' + payload + b"}")])]
    columns, ok = in_columns(found)
    assert ok == [True]
    assert columns[0]["payload"].encode() == payload


def test_a_nested_mark_in_an_unknown_member_costs_only_its_own_line() -> None:
    odd = b'{"x":{"y":1,"payload":{"not":"this"}},"eventType":"odd","payload":{"this":1}}'
    plain_event = b'{"eventType":"plain","payload":{}}'
    found = [block([gateway_line(e) for e in (plain_event, odd, plain_event)])]
    _, ok = in_columns(found)
    assert ok == [True, False, True]
    judged = rows(plain(DECODER.decode(found)))
    assert [row["event_type"] for row in judged] == ["plain", "odd", "plain"]
    assert judged[1]["payload"] == '{"this":1}'
    assert_alike(found)
