"""Arrow records are decoded many at once; each gets the rows that it would get alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.reasons import Reason
from dc_platform.decode import arrow as arrow_reader
from dc_platform.decode import arrow_records
from dc_platform.decode.arrow_lines import line
from dc_platform.decode.arrow_records import ARROW_EVENTS, chunks, events_of
from dc_platform.decode.columns import plain
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Line, Policy, read_lines
from dc_platform_tests.decode.test_arrow import KNOWN, arrow_events
from dc_platform_tests.helpers.events import HOUR, NOW, payloads, texts, versions
from dc_platform_tests.helpers.records import SOURCE, TOPIC_ID, arrow, arrow_bytes, rows, strange

DECODER = Decoder(TOPIC_ID, KNOWN, Policy(HOUR, 300))
# JSON knows a key twice, and so does Arrow's map.
repeated_tags = st.lists(st.tuples(st.sampled_from("abé"), texts), max_size=3)
valid_events = st.fixed_dictionaries(
    {
        "sourceId": st.sampled_from(("s", SOURCE, SOURCE.upper())),
        "eventType": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
        "payload": payloads,
        "eventId": st.uuids().map(str),
        "timestamp": st.none() | st.integers(NOW - HOUR, NOW),
        "version": st.none() | versions,
        "tags": st.none() | repeated_tags,
    }
)


def in_other_types(table: pa.Table) -> pa.Table:
    """The same events in columns of other types and names, without those that are all null."""
    names = {"sourceId": "source_id", "eventType": "event_type", "timestamp": "event_time"}
    kept = [name for name in table.column_names if table[name].null_count < len(table)]
    kept = sorted({"sourceId", "eventType", "payload", *kept})
    columns = {names.get(name, name): table[name] for name in kept}
    columns["source_id"] = columns["source_id"].dictionary_encode()
    columns["payload"] = columns["payload"].cast(pa.large_string())
    return pa.table({**columns, "other": pa.nulls(len(table))})


@st.composite
def records(draw: st.DrawFn) -> list[Record]:
    """Records of several partitions, times, types and stamps; some are damaged."""
    found = []
    for offset in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(("events", "events", "other", "damaged")))
        events = draw(st.lists(st.one_of(valid_events, arrow_events), max_size=4))
        table = pa.Table.from_pylist(events, schema=ARROW_EVENTS)
        value = arrow_bytes(in_other_types(table) if kind == "other" else table)
        if kind == "damaged":
            value = value[: draw(st.integers(0, len(value) - 20))]
        stamp = draw(st.none() | st.sampled_from((b"", b"7", b"null")))
        record = strange(
            value,
            offset,
            partition=draw(st.integers(0, 2)),
            timestamp_ms=draw(st.sampled_from((NOW, NOW + 1, NOW - 2 * HOUR, -1))),
            content_type=blocks.ARROW,
            headers=None if stamp is None else {blocks.SCHEMA_VERSION: stamp},
        )
        found.append(record)
    return found


def by_address(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    address = ("kafka_partition", "kafka_offset", "kafka_index")
    return sorted(found, key=lambda row: tuple(row[name] for name in address))


@given(records(), st.data())
@settings(max_examples=80)
def test_any_grouping_gives_the_rows_of_each_record_alone(
    found: list[Record], data: st.DataObject
) -> None:
    alone = [row for record in found for row in rows(plain(DECODER.decode([record])))]
    cut = data.draw(st.integers(0, len(found)))
    shuffled = data.draw(st.permutations(found))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow_records, "CHUNK_ROWS", data.draw(st.sampled_from((1, 2, 3, 5, 100))))
        patch.setattr(arrow_records, "CHUNK_BYTES", data.draw(st.sampled_from((1, 200, 1 << 20))))
        groups = [rows(plain(DECODER.decode(g))) for g in (shuffled[:cut], shuffled[cut:])]
    assert all(group == by_address(group) for group in groups)
    assert by_address([*groups[0], *groups[1]]) == by_address(alone)


@given(st.lists(valid_events, min_size=1, max_size=8))
@settings(max_examples=80)
def test_lines_written_in_columns_are_those_written_one_by_one(found: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(found, schema=ARROW_EVENTS)
    lines = [row["raw"] for row in rows(DECODER.decode([arrow(table)]))]
    assert lines == [line(event) for event in table.to_pylist()]


def events(payload: list[str], **columns: Any) -> dict[str, Any]:
    """Columns of valid events but for what is given."""
    size = len(payload)
    ids = [f"{i:08x}-0000-4000-8000-000000000000" for i in range(size)]
    usual = {"sourceId": ["s"] * size, "eventType": ["t"] * size, "eventId": ids}
    return {**usual, "payload": payload, **columns}


@pytest.mark.parametrize(
    ("payload", "good"),
    [
        (["{}", "{}{}", '{"a":"}', '{"}'], [0]),
        (["{} {}", '{"a":[{}', '{"b":1}]}'], []),
        (["{}\n{}", '{"a":{}', '{"b":1}}', "{}"], [3]),
        (['{"a":"\\}', '{"}', "{}"], [2]),
        (['{"a":\n1}', "{\n\n}", "{}\r"], [0, 1, 2]),
        (["", "{", "}", "{}", "{}}"], [3]),
        (['{"a":' * 254 + "{}" + "}" * 254, '{"a":' * 255 + "{}" + "}" * 255, "{}"], [0, 2]),
        (['{"a":' * 5000 + "{}" + "}" * 5000, "{}"], [1]),
    ],
)
def test_texts_that_are_json_only_together_are_not_payloads(
    payload: list[str], good: list[int]
) -> None:
    judged = rows(Decoder(TOPIC_ID, KNOWN).decode([arrow(events(payload))]))
    found = [row["kafka_index"] for row in judged if row["verdict"] == blocks.VALID]
    assert found == good


def test_only_the_odd_rows_go_to_the_strict_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A null in a tag, a key twice, no id, another source: each costs its own row alone."""
    seen: list[tuple[int, int]] = []

    def noted(lines: list[Line], *more: Any, **named: Any) -> pa.Table:
        seen.extend((one.row, one.position) for one in lines)
        return read_lines(lines, *more, **named)

    monkeypatch.setattr(arrow_reader, "read_lines", noted)
    tags = pa.array(
        [[("a", "1")], [("a", "1"), ("a", "2")], None, [("a", None)], []],
        ARROW_EVENTS.field("tags").type,
    )
    first = events(["{}"] * 5, tags=tags)
    second = events(["{}"] * 5)
    second["eventId"][1] = None
    second["sourceId"][2] = "nobody"
    found = rows(plain(DECODER.decode([arrow(first), arrow(second, 1)])))
    assert seen == [(0, 1), (0, 3), (1, 1), (1, 2)]
    assert [row["tags"] for row in found[:5]] == [[("a", "1")], [("a", "2")], None, None, None]
    assert [row["reason"] for row in found if row["reason"]] == [
        Reason.WRONG_TYPE,
        Reason.UNKNOWN_SOURCE,
    ]


def test_a_damaged_record_costs_no_neighbour() -> None:
    good = arrow_bytes(events(["{}"]))
    values = [good, good[:-40], b"nonsense", arrow_bytes({"sourceId": ["s"]}), good]
    found = rows(
        plain(
            DECODER.decode([strange(v, i, content_type=blocks.ARROW) for i, v in enumerate(values)])
        )
    )
    assert [row["kafka_offset"] for row in found if row["verdict"] == blocks.VALID] == [0, 4]
    assert {row["reason"] for row in found[1:4]} == {Reason.UNDECODABLE_BLOCK}


def test_missing_tags_may_have_something_beneath() -> None:
    whole = pa.array(
        [[("a", "1")], [("b", "2"), ("b", "3")], [("c", "4")]], ARROW_EVENTS.field("tags").type
    )
    bits = pa.py_buffer(np.packbits([True, False, True], bitorder="little").tobytes())
    _, offsets = whole.buffers()[:2]
    cells = pa.StructArray.from_arrays([whole.keys, whole.items], ["key", "value"])
    tags = pa.Array.from_buffers(whole.type, 3, [bits, offsets], children=[cells])
    found = rows(plain(DECODER.decode([arrow(events(["{}"] * 3, tags=tags))])))
    assert [row["tags"] for row in found] == [[("a", "1")], None, [("c", "4")]]
    assert b"tags" not in found[1]["raw"]


def test_chunks_are_bounded_in_rows_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_records, "CHUNK_ROWS", 10)
    monkeypatch.setattr(arrow_records, "CHUNK_BYTES", 10_000)
    sizes = (3, 25, 0, 4, 1, 1)
    found = [arrow(events(["{}"] * size), i) for i, size in enumerate(sizes)]
    found.append(arrow(events(['{"a":"' + "x" * 4_000 + '"}'] * 5), len(sizes)))
    cut = list(chunks((record, events_of(record)) for record in found))
    assert all(len(chunk.rows) <= 10 and chunk.events.nbytes <= 10_000 for chunk in cut)
    addresses = [
        (chunk.records[row].offset, index)
        for chunk in cut
        for row, index in zip(chunk.rows.tolist(), chunk.indexes.tolist(), strict=True)
    ]
    assert addresses == [(i, j) for i, size in enumerate((*sizes, 5)) for j in range(size)]
