"""A verdict is a function of the record alone, and no record, however damaged, takes others with it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.tables import JUDGED
from dc_platform.decode.columns import AnySource, plain
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import split_record
from dc_platform_tests.helpers.events import NOW, events
from dc_platform_tests.helpers.records import (
    SOURCE,
    TOPIC_ID,
    arrow,
    block,
    gateway_line,
    rejects_block,
    rows,
    strange,
)
from dc_platform_tests.helpers.zoo import ARROW_EVENT, EVENT, LINE, RECORDS, REJECTS

DECODER = Decoder(TOPIC_ID, AnySource())


def judged(records: Sequence[Record], decoder: Decoder = DECODER) -> list[dict[str, Any]]:
    table = plain(decoder.decode(records))
    table.validate(full=True)
    assert table.schema == JUDGED
    return rows(table)


def addresses(found: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    return [(r["kafka_partition"], r["kafka_offset"], r["kafka_index"]) for r in found]


# --- one row for each candidate, whatever the record is ---


@pytest.mark.parametrize("name", RECORDS)
def test_each_candidate_gives_one_row_and_neighbours_stay(name: str) -> None:
    record, expected = RECORDS[name]
    alone = judged([record])
    assert len(alone) == expected
    assert addresses(alone) == [(0, 0, index) for index in range(expected)]
    before, after = block([LINE, LINE], 0, partition=7), strange(EVENT, 9, partition=0)
    among = judged([before, record, after])
    assert among == [*alone, *judged([after]), *judged([before])]


def test_all_kinds_at_once_in_any_order() -> None:
    every = [
        record._replace(offset=offset, partition=offset % 3)
        for offset, (record, _) in enumerate(RECORDS.values())
    ]
    expected = [row for record in sorted(every, key=lambda r: r[:2]) for row in judged([record])]
    for seed in range(3):
        shuffled = random.Random(seed).sample(every, len(every))
        assert judged(shuffled) == expected
    assert sum(count for _, count in RECORDS.values()) == len(expected)


def test_a_thousand_records_in_one_poll() -> None:
    every = [
        record._replace(offset=offset, partition=offset % 4)
        for offset in range(1000)
        for record, _ in [list(RECORDS.values())[offset % len(RECORDS)]]
    ]
    table = DECODER.decode(every)
    alone = sum(list(RECORDS.values())[offset % len(RECORDS)][1] for offset in range(1000))
    assert len(table) == alone
    found = addresses(rows(table.select(["kafka_partition", "kafka_offset", "kafka_index"])))
    assert found == sorted(set(found))


@pytest.mark.parametrize("second", [n for n in RECORDS if "rejects" in n or "Arrow" in n])
def test_any_two_kinds_in_one_poll(second: str) -> None:
    """Readers join tables of several records: none of them may have a type of its own."""
    other = RECORDS[second][0]._replace(partition=1)
    expected = judged([other])
    for record, _ in RECORDS.values():
        assert judged([other, record])[-len(expected) or 999 :] == expected


def test_every_rejected_row_can_be_kept() -> None:
    """What quarantine needs is there: bytes, reason, identity, a UUID that is not repeated."""
    every = [record._replace(offset=offset) for offset, (record, _) in enumerate(RECORDS.values())]
    rejected = [row for row in judged(every) if row["verdict"] == blocks.REJECTED]
    assert len({row["quarantine_id"] for row in rejected}) == len(rejected) > 20
    for row in rejected:
        assert row["reason"] in set(Reason)
        assert row["raw"] is not None
        assert row["raw_length"] >= len(row["raw"])
        assert row["dedup_scope"] is not None
        assert row["received_at"] is not None


def test_every_valid_row_can_land() -> None:
    every = [record._replace(offset=offset) for offset, (record, _) in enumerate(RECORDS.values())]
    needed = ("tenant_id", "source_id", "event_id", "event_type", "event_time", "received_at")
    needed += ("payload", "schema_version", "dedup_scope", "sample_rate", "raw")
    for row in judged(every):
        if row["verdict"] == blocks.VALID:
            assert [name for name in needed if row[name] is None] == []
            assert (row["reason"], row["message"], row["quarantine_id"]) == (None, None, None)


# --- damage ---


def flipped(record: Record, seed: int) -> Record:
    """The record with some of its bytes changed, cut or doubled."""
    chance = random.Random(seed)
    value = bytearray(record.value)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(value))
        action = chance.random()
        if action < 0.7:
            value[at] = chance.choice((chance.randrange(256), value[at] ^ 1, 0, 255, 10, 34))
        elif action < 0.85:
            del value[at : at + chance.randrange(1, 9)]
        else:
            value[at:at] = value[max(0, at - 5) : at]
        if not value:
            break
    return record._replace(value=bytes(value))


WHOLE = [
    block([gateway_line(b'{"eventType":"t","metadata":{"tags":{"k":"v"}},"payload":{}}'), LINE]),
    rejects_block(REJECTS),
    arrow(ARROW_EVENT),
    strange(EVENT + b"\n" + EVENT),
]


@pytest.mark.parametrize("number", range(len(WHOLE)))
def test_damaged_records_never_raise_and_never_take_a_neighbour(number: int) -> None:
    neighbour = block([LINE, LINE], 0, partition=1)
    alone = judged([neighbour])
    for seed in range(150):
        damaged = flipped(WHOLE[number], seed)
        found = judged([damaged])
        lines = [part for part in damaged.value.split(b"\n") if part]
        if blocks.holds_events(damaged.headers):
            assert len(found) == len(lines)
        elif damaged.value.strip(b" \t\r\n"):
            assert found
        assert judged([neighbour, damaged]) == [*found, *alone]


@given(st.binary(max_size=200), st.sampled_from([r.headers for r, _ in RECORDS.values()]))
@settings(max_examples=60)
def test_any_bytes_under_any_headers(value: bytes, headers: dict[str, bytes]) -> None:
    found = judged([Record(0, 0, NOW, headers, value)])
    if blocks.holds_events(headers):
        assert len(found) == sum(1 for part in value.split(b"\n") if part)
    assert addresses(found) == [(0, 0, index) for index in range(len(found))]


# --- stability ---


@given(
    st.lists(st.one_of(events(source_id="s"), st.binary(max_size=30)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40)
def test_a_verdict_depends_on_nothing_but_the_record(
    values: list[bytes], chance: random.Random
) -> None:
    every = [strange(value, offset, partition=offset % 2) for offset, value in enumerate(values)]
    every += [
        block([value.replace(b"\n", b" ")], 100 + offset) for offset, value in enumerate(values)
    ]
    alone = {record: judged([record]) for record in map(hashable, every)}
    shuffled = chance.sample(every, len(every))
    together = judged(shuffled)
    expected = [
        row
        for record in sorted(every, key=lambda r: (r.partition, r.offset))
        for row in alone[hashable(record)]
    ]
    assert together == expected
    assert judged(shuffled, Decoder(TOPIC_ID, AnySource())) == expected


def hashable(record: Record) -> Any:
    return Record(*record[:3], _Headers(record.headers), record.value)


class _Headers(dict[str, bytes]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


@pytest.mark.parametrize(
    "odd",
    [
        LINE.replace(b'"t"', b"5"),
        LINE.replace(b'"metadata":{', b'"x":NaN,"metadata":{'),
        LINE.replace(b'"metadata":{', b'"metadata":{"tags":{"a":"1","a":"2"},'),
        LINE.replace(b'"metadata":{', b'"metadata":{"tags":{},'),
        LINE.replace(b'"metadata":{', b'"metadata":{"version":"",'),
        LINE.replace(b'"eventType"', b'"timestamp":"x","eventType"'),
        LINE.replace(b'"eventType"', b'"timestamp":1e300,"eventType"'),
    ],
)
def test_a_forged_line_is_judged_alike_whatever_its_neighbours_are(odd: bytes) -> None:
    """A broken neighbour sends the group another way; that way must give the same verdicts."""
    broken = block([b'{"a":,"payload":{}}', b'\xff,"payload":{}}'], 0)
    record = block([LINE, odd], 1)
    assert judged([broken, record]) == [*judged([broken]), *judged([record])]


def test_a_block_header_alone_makes_no_gateway() -> None:
    headers = block([LINE]).headers
    for wrong in (
        {blocks.VERDICT: b"REJECTED"},
        {blocks.CONTENT_TYPE: b"application/json"},
        {blocks.VERDICT: b""},
    ):
        [row] = judged([Record(0, 0, NOW, {**headers, **wrong}, LINE)])
        assert row["block_id"] is None
        assert row["block_events"] is None
    [row] = judged([block([LINE])])
    assert (row["block_id"], row["block_events"]) == ("gateway-1/b00t/0", 1)


@pytest.mark.parametrize(
    ("counts", "total"),
    [
        (b'{"a":2,"b":3}', 5),
        (b'{"a,b:c":2}', 2),
        (b"{}", 0),
        (b'{"a":-1}', None),
        (b'{"a":2147483648}', None),
        (b"2", None),
        (b"", None),
    ],
)
def test_the_gateways_count_is_read_or_left_out(counts: bytes, total: int | None) -> None:
    record = block([LINE])
    [row] = judged([record._replace(headers={**record.headers, blocks.COUNTS: counts})])
    assert row["block_events"] == total


# --- times and pieces ---


def test_missing_and_impossible_record_times_become_the_nearest_time_that_there_is() -> None:
    for given_ms, used in ((-1, 0), (2**62, MAX_TIMESTAMP_MS), (NOW, NOW)):
        [row] = judged([strange(EVENT, timestamp_ms=given_ms)])
        assert round(row["kafka_timestamp"].timestamp() * 1000) == used
        assert row["received_at"] == row["kafka_timestamp"]


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (b'{"a":\n1}', [b'{"a":\n1}']),
        (b'{"a":1}\n{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b' {"a":1} \r\n\n {"b":2}\t', [b'{"a":1}', b'{"b":2}']),
        # A form feed is no white space of JSON: stripping it would make one event of two lines.
        (b'{"a":\n\x0c1}', [b'{"a":', b"\x0c1}"]),
        (b"\x0b{}\n\x0c", [b"\x0b{}", b"\x0c"]),
        (b"", []),
        (b"\n \r\n", []),
    ],
)
def test_a_record_is_split_at_its_lines_unless_it_is_one_json_value(
    value: bytes, parts: list[bytes]
) -> None:
    assert list(split_record(value)) == parts
    # Bronze keeps the parts: put together again they must come apart the same way.
    assert list(split_record(b"\n".join(parts))) == parts


def test_sources_are_taken_as_they_are_named() -> None:
    upper = SOURCE.upper().encode()
    [row] = judged([strange(EVENT.replace(b'"s"', b'"' + upper + b'"'))])
    assert row["source_id"] == SOURCE
