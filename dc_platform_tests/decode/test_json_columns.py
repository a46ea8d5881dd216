"""Strangers' JSON in columns: the same rows as the strict judge gives, for anything at all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.broker.records import Record, Records
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.envelope import MAX_DEPTH
from dc_platform.decode import blocks as block_reader
from dc_platform.decode import json_columns
from dc_platform.decode.columns import KnownSources, plain
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.json_columns import read_json
from dc_platform.decode.json_texts import texts_of
from dc_platform.decode.strangers import Line, Policy, lines_of, read_lines
from dc_platform_tests.helpers.events import HOUR, NOW, TRAPS, events, quote
from dc_platform_tests.helpers.records import (
    NEVER,
    SOURCE,
    TOPIC_ID,
    Registered,
    block,
    rows,
    strange,
)

LIMIT = 3_000
POLICY = Policy(HOUR, LIMIT, NEVER)
HISTORY: KnownSources = Registered(
    {"s": ("tenant-s", NOW, NOW + 100), SOURCE: ("default", 0, None), "é": ("é", 0, None)}
)
OTHER = SOURCE.replace("a", "b")


def in_columns(records: Sequence[Record]) -> list[dict[str, Any]]:
    columns = Records.of(records)
    table = read_json(texts_of(columns), columns, topic_id=TOPIC_ID, sources=HISTORY, policy=POLICY)
    table = plain(table)
    table.validate(full=True)
    return rows(table)


def strictly(records: Sequence[Record]) -> list[dict[str, Any]]:
    lines = lines_of(records)
    table = read_lines(lines, records, topic_id=TOPIC_ID, sources=HISTORY, policy=POLICY)
    return rows(plain(table))


def assert_alike(values: Sequence[bytes], **more: Any) -> None:
    records = [strange(v, i, partition=i % 3, **more) for i, v in enumerate(values)]
    expected = strictly(records)
    assert in_columns(records) == expected
    alone = [row for record in records for row in in_columns([record])]
    assert alone == expected
    decoder = Decoder(TOPIC_ID, HISTORY, POLICY)
    lines = list(lines_of(records))
    assert rows(plain(decoder.decode_lines(lines, records))) == expected
    key = ("kafka_partition", "kafka_offset", "kafka_index")
    in_order = sorted(expected, key=lambda row: tuple(row[name] for name in key))
    assert rows(plain(decoder.decode(records))) == in_order


# --- events as anyone may write them ---


def member(name: str, value: str) -> str:
    return f"{quote(name)}:{value}"


WHOLE = (
    f'{{"sourceId":"{SOURCE}","eventType":"t","eventId":"{OTHER}","timestamp":{NOW},'
    '"metadata":{"version":"2","tags":{"a":"b"}},"payload":{"a":1.10, "b":[1e5,"\\u00e9é"]}}'
)
DEEP = MAX_DEPTH + 3
# What may stand where a value is expected; not all of it is JSON.
VALUES = (
    *("null", "true", "NaN", "Infinity", "-", "-0", "01", "1.", "1e999", "1e-999", "9" * 400, "+1"),
    *(str(NOW), str(NOW + HOUR), str(NOW + HOUR + 1), f"{NOW}.0", f"{NOW // 1000}e3", str(2**63)),
    *(
        '""',
        '"s"',
        '"é"',
        f'"{SOURCE}"',
        f'"{SOURCE.upper()}"',
        f'"{OTHER[:-1]}g"',
        '"' + "x" * 129,
    ),
    *(
        '"\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u0000"',
        '"\x00"',
        '"\\x"',
        '"\t"',
        '"\x7f"',
        "'s'",
        '"',
    ),
    *("{}", "[]", "[1,]", '{"a":1,}', '{"a":1,"a":2}', '{"payload":{}}', "{]", "[}", "{1:2}"),
    *("{" + ws + "}" for ws in ("\n", "\r\n", "\t", "\x0b", "\u00a0", "/**/")),
    *("[" * n + "]" * n for n in (DEEP - 5, DEEP, 3 * DEEP)),
    *("[" * DEEP, '{"a":' * 300 + "1" + "}" * 300, "[" * 250 + '"]]]]"' + "]" * 250),
    *(quote(trap) for trap in TRAPS),
    '{"version":"' + "v" * 65 + '"}',
    '{"tags":{"a":"1","a":"2"}}',
    '{"tags":{"a":1}}',
    '{"tags":null,"version":null,"more":[NaN]}',
    '{"receivedAt":1,"clientEventId":"x","tags":{}}',
    '"' + "x" * LIMIT + '"',
)
NAMES = (
    *("sourceId", "eventType", "eventId", "timestamp", "metadata", "payload", "more", "EventType"),
    *("eventId ", "event\x00Id", ""),
)
ESCAPED = {"sourceId": '"\\u0073ourceId"', "payload": '"pay\\u006coad"'}
AROUND = ("", "", "", " ", "\r\n", "\ufeff", "\x00", "\x0c", "x", ",", "}", "{}", "\n{}", WHOLE)


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """An event with some members wrong, doubled, escaped or missing, and things around it."""
    members = [
        ('"sourceId"', draw(st.sampled_from((f'"{SOURCE}"', f'"{SOURCE.upper()}"', '"s"', '"?"')))),
        ('"eventType"', '"t"'),
        ('"payload"', draw(st.sampled_from(("{}", '{"a":1.10}', '{"payload":{"a":[{}]}}')))),
    ]
    names = st.sampled_from([*map(quote, NAMES), *ESCAPED.values(), "eventId", '"\\ud800"'])
    members += draw(st.lists(st.tuples(names, st.sampled_from(VALUES)), max_size=3))
    if draw(st.integers(0, 3)) == 0:
        del members[draw(st.integers(0, 2))]
    colon, comma = draw(st.sampled_from((":", " : ", ":\n"))), draw(st.sampled_from((",", "\t, ")))
    text = comma.join(name + colon + value for name, value in draw(st.permutations(members)))
    around = st.sampled_from(AROUND)
    return f"{draw(around)}{{{text}}}{draw(around)}".encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An event with some of its bytes changed, cut or doubled."""
    value = bytearray(WHOLE.encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(value) - 1))
        size = draw(st.integers(0, 3))
        value[at : at + size] = draw(st.sampled_from((b"", b"\xff", b"\xc3", b"\xa9", b'"', b"}")))
    return bytes(value)


anything = st.one_of(
    hostile(),
    hostile(),
    damaged(),
    events(source_id=SOURCE),
    events(source_id="s"),
    st.just(WHOLE.encode()),
    st.binary(max_size=12),
)


@given(
    st.lists(anything, min_size=1, max_size=8),
    st.sampled_from((NOW, NOW + 99, NOW + 100, 0)),
    st.sampled_from(({}, {blocks.SCHEMA_VERSION: b"7"}, {"trace": b"\xff"})),
)
@settings(max_examples=250, deadline=None)
def test_columns_and_the_strict_judge_give_the_same_rows(
    values: list[bytes], at: int, headers: dict[str, bytes]
) -> None:
    assert_alike(values, timestamp_ms=at, headers=headers)


@pytest.mark.parametrize("value", VALUES)
def test_any_value_of_any_member_is_judged_alike(value: str) -> None:
    texts = []
    for name in NAMES:
        given = {"sourceId": '"s"', "eventType": '"t"', "payload": "{}", name: value}
        whole = "{" + ",".join(member(k, v) for k, v in given.items()) + "}"
        texts += [whole, whole[:-1] + ',"payload":{"last":1}}', whole.replace('"s"', '"\\u0073"')]
    assert_alike([text.encode() for text in texts])
    assert_alike([value.encode()])


@pytest.mark.parametrize(
    "parts",
    [
        [b'{"eventType":"t","sourceId":"s"', b'"payload":{}},{"a":1}'],
        [b'{"eventType":"t","sourceId":"s","payload":{}},{"a":1}', b"{}"],
        [b'{"eventType":"t","sourceId":"s","payload":{"a":"\xc3', b'\xa9"}}'],
        [b'{"eventType":"t","sourceId":"s","payload":"', b'"}'],
        [b"", b" ", WHOLE.encode(), b"\n", b"\xff", WHOLE.encode()],
        [b"[" + WHOLE.encode(), WHOLE.encode() + b"]"],
        [WHOLE.encode() + WHOLE.encode(), b'{"eventType":"t","payload":{}', b'{"sourceId":"s"}}'],
        [WHOLE.encode() + b" " + WHOLE.encode(), b'{"payload":{}', b',"sourceId":"s"}'],
    ],
)
def test_texts_that_would_be_another_text_together_are_judged_alone(parts: list[bytes]) -> None:
    assert_alike(parts)
    assert_alike([WHOLE.encode(), *parts, WHOLE.encode()])


def test_order_stays_where_every_second_text_is_rejected() -> None:
    texts = [
        WHOLE.encode().replace(b'"t"', b'"%d"' % i if i % 2 else b"%d" % i) for i in range(999)
    ]
    assert_alike([b"\n".join(texts[i : i + 1 + i % 4]) for i in range(0, 999, 5)])


def test_the_limit_is_the_last_size_that_is_accepted() -> None:
    sizes = (LIMIT - 1, LIMIT, LIMIT + 1)
    values = [WHOLE.replace("1.10", '"' + "x" * (n - 1024) + '"').encode() for n in sizes]
    more = LIMIT - len(values[1])
    values = [value.replace(b"xx", b"x" * (2 + more), 1) for value in values]
    assert [len(value) for value in values] == list(sizes)
    assert_alike(values)
    found = in_columns([strange(value, offset) for offset, value in enumerate(values)])
    assert [row["verdict"] for row in found] == [blocks.VALID, blocks.VALID, blocks.REJECTED]


# --- which texts are read in columns ---

PLAIN = {"sourceId": f'"{SOURCE}"', "eventType": '"t"', "payload": '{"a":1.10}'}
IN_COLUMNS: dict[str, dict[str, str]] = {
    "the least": {},
    "id": {"eventId": f'"{OTHER}"'},
    "id in capitals": {"eventId": f'"{OTHER.upper()}"'},
    "id of another form": {"eventId": f'"{OTHER.replace("-", "")}"'},
    "id of 36 characters": {"eventId": '"' + "é" * 18 + '"'},
    "text as id": {"eventId": '"order 5"'},
    "time": {"timestamp": str(NOW + HOUR)},
    "time before 1970": {"timestamp": "-1"},
    "nulls": {"eventId": "null", "timestamp": "null", "metadata": "null"},
    "metadata": {"metadata": '{"version":"2","tags":{"k":"v"}}'},
    "metadata of nothing": {"metadata": '{"tags":{},"version":null}'},
    "unknown members": {"x": "[1]", "metadata": '{"x":1}'},
    "source in capitals": {"sourceId": f'"{SOURCE.upper()}"'},
    "another source": {"sourceId": '"é"'},
    "large": {"payload": '{"a":"' + "[" * 1500 + '"}'},
}


@pytest.mark.parametrize("name", IN_COLUMNS)
def test_what_can_be_accepted_needs_no_strict_judge(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [IN_COLUMNS[name], {}, IN_COLUMNS[name]]
    texts = ["{" + ",".join(member(*m) for m in (PLAIN | e).items()) + "}" for e in every]
    records = [strange(text.encode(), offset) for offset, text in enumerate(texts)]
    expected = strictly(records)
    assert {row["verdict"] for row in expected} == {blocks.VALID}
    monkeypatch.setattr(json_columns, "read_lines", None)
    assert in_columns(records) == expected


def test_payload_bytes_stay_as_they_were_sent() -> None:
    payload = b'{"price":1.10, "a":1e999,"a":2,"u":"\\u00e9\\/\xc3\xa9","n":' + b"7" * 50 + b" }"
    text = b'{"payload": ' + payload + b' ,"sourceId":"s","eventType":"t"}'
    [row] = in_columns([strange(b" " + text + b"\n")])
    assert row["payload"].encode() == payload
    assert row["raw"] == text


# --- pieces ---


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [WHOLE.encode() * (i % 7 == 0) + b"\n" + WHOLE.encode() for i in range(40)]
    records = [strange(value, offset) for offset, value in enumerate(values)]
    lines = list(lines_of(records))
    shuffled = random.Random(1).sample(lines, len(lines))
    decoder = Decoder(TOPIC_ID, HISTORY, POLICY)

    def judged(some: list[Line]) -> list[dict[str, Any]]:
        return rows(plain(decoder.decode_lines(some, records)))

    expected = rows(plain(decoder.decode(records)))
    mixed = judged(shuffled)
    assert judged(lines) == expected
    monkeypatch.setattr(block_reader, "GROUP_BYTES", 700)
    assert len(list(block_reader.groups(Records.of(records)))) > 5
    assert rows(plain(decoder.decode(records))) == expected
    assert judged(lines) == expected
    assert judged(shuffled) == mixed
    assert judged([]) == []


def test_a_line_of_a_gateways_block_is_not_judged_as_a_strangers() -> None:
    line = WHOLE.replace('"version"', '"receivedAt":5,"version"').encode()
    ours, theirs = block([line], 0), strange(line, 1)
    decoder = Decoder(TOPIC_ID, HISTORY, POLICY)
    lines = [Line(0, 0, line), Line(1, 0, line)]
    found = rows(plain(decoder.decode_lines(lines, [ours, theirs])))
    assert [row["received_at"].timestamp() for row in found] == [0.005, NOW / 1000]


def test_a_source_is_asked_for_once_for_each_time() -> None:
    asked: list[tuple[str, int]] = []

    class Asked:
        def tenant_of(self, source_id: str, at_ms: int) -> str | None:
            asked.append((source_id, at_ms))
            return HISTORY.tenant_of(source_id, at_ms)

        def rules_of(self, source_id: str, at_ms: int) -> None:
            asked.append((source_id, at_ms))

    values = [WHOLE, WHOLE.replace(SOURCE, SOURCE.upper()), WHOLE.replace(SOURCE, "é")] * 5
    records = [strange(v.encode(), i, timestamp_ms=NOW + i // 9) for i, v in enumerate(values)]
    found = rows(plain(Decoder(TOPIC_ID, Asked(), POLICY).decode(records)))
    assert [row["tenant_id"] for row in found] == ["default", "default", "é"] * 5
    once = [(s, NOW + i) for s in (SOURCE, "é") for i in (0, 1)]
    assert sorted(asked) == sorted(2 * once)
    assert {row["event_id"] for row in found} == {identity.canonical_uuid(OTHER)}
