"""Arrow columns are judged as the lines that they would have been."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.envelope import MAX_DEPTH, MAX_TIMESTAMP_MS, MIN_TIMESTAMP_MS
from dc_platform.contracts.reasons import Reason
from dc_platform.decode import arrow as arrow_reader
from dc_platform.decode.arrow_records import ARROW_EVENTS, CHUNK_ROWS
from dc_platform.decode.columns import plain
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Line, Policy, read_lines
from dc_platform_tests.helpers.events import HOUR, NOW, TRAPS, client_ids, payloads, texts, versions
from dc_platform_tests.helpers.records import (
    SOURCE,
    TOPIC_ID,
    Registered,
    arrow,
    arrow_bytes,
    rows,
    strange,
)

LIMIT = 300
KNOWN = Registered(
    {"s": ("tenant-s", 0, None), SOURCE: ("default", 0, None), "late": ("default", NOW + 1, None)}
)
DECODER = Decoder(TOPIC_ID, KNOWN, Policy(HOUR, LIMIT))


def judged(record: Record) -> list[dict[str, Any]]:
    return rows(plain(DECODER.decode([record])))


def strictly(record: Record, raws: list[bytes]) -> list[dict[str, Any]]:
    """The strict verdict on the lines of a record."""
    lines = [Line(0, index, raw) for index, raw in enumerate(raws)]
    policy = Policy(HOUR, LIMIT)
    return rows(read_lines(lines, [record], topic_id=TOPIC_ID, sources=KNOWN, policy=policy))


def line_of(event: Mapping[str, Any]) -> bytes:
    """The line that a row stands for, written by someone who knows nothing of the reader."""
    members: dict[str, Any] = {
        name: event[name]
        for name in ("eventId", "sourceId", "timestamp", "eventType")
        if event[name] is not None
    }
    metadata: dict[str, Any] = {}
    if event["version"] is not None:
        metadata["version"] = event["version"]
    if event["tags"] is not None:
        metadata["tags"] = dict(event["tags"])
    if metadata:
        members["metadata"] = metadata
    payload = "null" if event["payload"] is None else event["payload"]
    try:
        json.loads(payload)
    except ValueError:
        payload = json.dumps(payload)
    text = json.dumps(members, ensure_ascii=False)[:-1]
    return f'{text}{", " if members else ""}"payload":{payload}}}'.encode()


names = st.one_of(st.sampled_from(("s", SOURCE, SOURCE.upper(), "late", "unknown", "")), texts)
maybe_tags = st.none() | st.lists(
    st.tuples(texts, st.one_of(texts, texts, st.none())), max_size=3, unique_by=lambda tag: tag[0]
)
arrow_events = st.fixed_dictionaries(
    {
        "sourceId": st.none() | names,
        "eventType": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "payload": st.one_of(
            payloads,
            payloads,
            st.none(),
            st.sampled_from(
                ("", "[]", "5", "{", "nonsense", " {} ", "{}\n", '{"a":1},"eventType":"x","b":{}')
            ),
        ),
        "eventId": st.none() | client_ids | st.just(""),
        "timestamp": st.one_of(
            st.none(),
            st.integers(MIN_TIMESTAMP_MS, NOW + HOUR),
            st.integers(-(2**63), 2**63 - 1),
            st.sampled_from((NOW + HOUR, NOW + HOUR + 1, MAX_TIMESTAMP_MS + 1, -1, 0, 2**62)),
        ),
        "version": st.none() | versions | st.just("v" * 65),
        "tags": maybe_tags,
    }
)


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


@given(st.lists(arrow_events, min_size=1, max_size=8))
@settings(max_examples=80)
def test_columns_are_judged_as_their_lines(found: list[dict[str, Any]]) -> None:
    record = arrow(pa.Table.from_pylist(found, schema=ARROW_EVENTS))
    columns = judged(record)
    lines = strictly(record, [line_of(event) for event in found])
    same_but_for_bytes = ("raw", "raw_length", "raw_sha256", "message")
    for column_row, line_row, event in zip(columns, lines, found, strict=True):
        # Sizes differ by the white space of whoever wrote the line.
        if Reason.EVENT_TOO_LARGE in (column_row["reason"], line_row["reason"]):
            assert len(line_of(event)) > LIMIT - 30
            continue
        assert without(column_row, *same_but_for_bytes) == without(line_row, *same_but_for_bytes)
    # What bronze keeps gives the same verdict again, to the letter.
    assert strictly(record, [row["raw"] for row in columns]) == columns


def one(**columns: Any) -> dict[str, Any]:
    """The judged row of one event, of which some columns are given."""
    usual = {"sourceId": ["s"], "eventType": ["t"], "payload": ['{"a":1}']}
    [row] = judged(arrow({**usual, **columns}))
    return row


def test_an_event_in_other_spelling() -> None:
    row = rows(
        plain(
            DECODER.decode(
                [
                    arrow(
                        {
                            "source_id": ["s"],
                            "event_type": ["t"],
                            "payload": ['{"a":1}'],
                            "event_id": [SOURCE.upper()],
                            "event_time": [NOW],
                            "schema_version": ["2"],
                        }
                    )
                ]
            )
        )
    )[0]
    assert row["verdict"] == blocks.VALID
    assert (row["tenant_id"], row["event_id"], row["schema_version"]) == ("tenant-s", SOURCE, "2")
    assert row["raw"] == (
        b'{"eventId":"%s","sourceId":"s","timestamp":%d,"eventType":"t","metadata":{"version":"2"},'
        b'"payload":{"a":1}}' % (SOURCE.upper().encode(), NOW)
    )


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"sourceId": ["late"]}, Reason.UNKNOWN_SOURCE),
        ({"sourceId": ["nobody"]}, Reason.UNKNOWN_SOURCE),
        ({"sourceId": pa.array([None], pa.string())}, Reason.MISSING_FIELD),
        ({"eventType": [""]}, Reason.VALUE_OUT_OF_RANGE),
        ({"payload": ["{"]}, Reason.WRONG_TYPE),
        ({"payload": ["[]"]}, Reason.WRONG_TYPE),
        ({"payload": ['{"a":1},"eventType":"x","b":{}']}, Reason.WRONG_TYPE),
        ({"payload": ["[" * 300]}, Reason.EVENT_TOO_LARGE),
        ({"timestamp": [NOW + HOUR + 1]}, Reason.TIMESTAMP_IN_FUTURE),
        ({"timestamp": [2**62]}, Reason.VALUE_OUT_OF_RANGE),
        ({"payload": ['{"a":"' + "x" * LIMIT + '"}']}, Reason.EVENT_TOO_LARGE),
        ({"eventType": [5], "timestamp": ["soon"]}, Reason.UNDECODABLE_BLOCK),
    ],
)
def test_rejected_rows(columns: dict[str, Any], reason: Reason) -> None:
    row = one(eventId=[SOURCE], **columns)
    assert row["reason"] == reason
    assert row["quarantine_id"]


@pytest.mark.parametrize("depth", [MAX_DEPTH - 2, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1])
def test_depth_is_that_of_the_line(depth: int) -> None:
    decoder = Decoder(TOPIC_ID, KNOWN)
    payload = '{"a":' * depth + "1" + "}" * depth
    columns = {"sourceId": ["s"], "eventType": ["t"], "payload": [payload], "eventId": [SOURCE]}
    [row] = rows(plain(decoder.decode([arrow(columns)])))
    line = b'{"sourceId":"s","eventType":"t","payload":' + payload.encode() + b"}"
    [strict] = rows(plain(decoder.decode([strange(line)])))
    assert row["reason"] == strict["reason"]
    assert (row["reason"] is None) == (depth < MAX_DEPTH)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([NOW * 1000 + 999], pa.timestamp("us")),
        pa.array([NOW * 1_000_000 + 999_999], pa.timestamp("ns", tz="Europe/Berlin")),
        pa.array([NOW], pa.timestamp("ms", tz="UTC")),
        pa.array([NOW // 1000], pa.timestamp("s")),
        pa.array([NOW], pa.int64()),
    ],
)
def test_times_of_any_unit_are_rounded_down(column: pa.Array) -> None:
    row = one(eventId=[SOURCE], timestamp=column)
    assert row["verdict"] == blocks.VALID
    assert row["event_time"].timestamp() * 1000 == NOW
    assert f'"timestamp":{NOW},'.encode() in row["raw"]


def test_a_time_before_1970_is_rounded_down_too() -> None:
    row = one(eventId=[SOURCE], timestamp=pa.array([-1], pa.timestamp("us")))
    assert b'"timestamp":-1,' in row["raw"]
    assert row["dedup_scope"] == -1


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["t"]).dictionary_encode(),
        pa.array(["t"], pa.large_string()),
        pa.array([b"t"], pa.binary()),
        pa.array(["t"], pa.string_view()),
    ],
)
def test_texts_of_any_type(column: pa.Array) -> None:
    assert one(eventType=column)["event_type"] == "t"


def test_bytes_that_are_no_text_spoil_their_record() -> None:
    row = one(eventType=pa.array([b"\xff"], pa.binary()))
    assert row["reason"] == Reason.UNDECODABLE_BLOCK
    bad = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")]
    )
    assert one(eventType=bad)["reason"] == Reason.UNDECODABLE_BLOCK


def test_offsets_that_point_outside_are_found_before_they_are_used() -> None:
    columns = {
        "sourceId": ["s"],
        "eventType": pa.array(["t" * 77], pa.large_string()),
        "payload": ["{}"],
    }
    value = arrow_bytes(columns)
    offsets, wild = struct.pack("<qq", 0, 77), struct.pack("<qq", 0, 1 << 40)
    assert value.count(offsets) == 1
    [row] = judged(strange(value.replace(offsets, wild), content_type=blocks.ARROW))
    assert row["reason"] == Reason.UNDECODABLE_BLOCK


def test_the_usual_rows_are_judged_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, each row could go the slow way and every other test would still pass."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a usual row went to the strict judge")

    monkeypatch.setattr(arrow_reader, "read_lines", never)
    tags = pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.string()))
    columns = {
        "sourceId": ["s", SOURCE.upper()],
        "eventType": ["t", TRAPS[0]],
        "payload": ["{}", '{"a":",\\"payload\\":{"}'],
        "eventId": [SOURCE, SOURCE.upper()],
        "timestamp": [NOW, None],
        "version": [None, "2"],
        "tags": tags,
    }
    found = judged(arrow(columns))
    assert [row["source_id"] for row in found] == ["s", SOURCE]
    assert [row["tags"] for row in found] == [[("k", "v")], None]


def test_more_rows_than_a_chunk_keep_their_order() -> None:
    size = CHUNK_ROWS + 7
    columns = {
        "sourceId": ["s"] * size,
        "eventType": [f"t{i}" if i % 1000 else None for i in range(size)],
        "payload": ["{}"] * size,
    }
    table = DECODER.decode([arrow(columns)])
    assert table["kafka_index"].to_pylist() == list(range(size))
    expected = [f"t{i}" if i % 1000 else None for i in range(size)]
    assert plain(table)["event_type"].to_pylist() == expected
