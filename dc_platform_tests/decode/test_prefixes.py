"""Lines as gateways write them are read by position, and give what the JSON reader gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dc_platform.decode.prefixes import Prefixes, read_prefixes

SOURCE = "00000000-0000-0000-0000-0000be7c0001"
ID = "5f64e6f2-6b0c-4f0b-9f43-1d9a8f6c0a01"


def prefixes(lines: list[str]) -> Prefixes | None:
    texts = [line.encode() for line in lines]
    buffer = b"\n".join(texts) + b"\n"
    ends = np.cumsum([len(text) + 1 for text in texts])
    starts = ends - [len(text) + 1 for text in texts]
    commas = np.array(
        [start + text.find(b',"payload":') for start, text in zip(starts, texts, strict=True)]
    )
    return read_prefixes(buffer, starts, commas, np.zeros(len(texts), np.int64))


def line(
    event_id: str = ID,
    source: str = SOURCE,
    time: str = '"timestamp":1790000000000,',
    event_type: str = "click",
    metadata: str = '"receivedAt":1790000000123',
) -> str:
    return (
        f'{{"eventId":"{event_id}","sourceId":"{source}",{time}"eventType":"{event_type}",'
        f'"metadata":{{{metadata}}},"payload":{{"a":1}}}}'
    )


def test_a_canonical_line_is_simple() -> None:
    tagged = '"receivedAt":1790000000123,"version":"2","tags":{"env":"prod","zone":"é"}'
    found = prefixes([line(), line(event_type="ü", metadata=tagged)])
    assert found is not None
    assert found.simple.tolist() == [True, True]
    assert found.event_id.to_pylist() == [ID, ID]
    assert found.source_id.to_pylist() == [SOURCE, SOURCE]
    assert found.timestamp_ms.to_pylist() == [1790000000000] * 2
    assert found.event_type.to_pylist() == ["click", "ü"]
    assert found.received_ms.to_pylist() == [1790000000123] * 2
    assert found.version.to_pylist() == [None, "2"]
    assert found.tags.to_pylist() == [None, [("env", "prod"), ("zone", "é")]]


@pytest.mark.parametrize(
    "odd",
    [
        line(event_id=ID.upper()),
        line(event_id=ID[:-1] + "g"),
        line(event_id=ID.replace("-", "0")),
        line(source=""),
        line(source="x" * 129),
        line(source=SOURCE[:-2] + "\\n"),
        line(source=SOURCE[:-1]),
        line(time=""),
        line(time='"timestamp":999999999999,'),
        line(time='"timestamp":0790000000000,'),
        line(time='"timestamp":-790000000000,'),
        line(time='"timestamp":179000000000x,'),
        line(time='"timestamp": 1790000000000,'),
        line(event_type=""),
        line(event_type="x" * 257),
        line(event_type='a\\"b'),
        line(event_type="a\tb"),
        line(event_type='click","extra":"1'),
        line(event_type='click","sourceId":"another'),
        line(metadata='"receivedAt":0123'),
        line(metadata='"receivedAt":999999999999999'),
        line(metadata='"receivedAt":1790000000123,"clientEventId":"c-1"'),
        line(metadata='"receivedAt":1790000000123,"tags":{"a":"1","a":"2"}'),
        line(metadata='"receivedAt":1790000000123,"tags":{"a":1}'),
        line(metadata='"receivedAt":1790000000123,"other":{}'),
        "{}",
        "",
        "x" * 300,
    ],
)
def test_any_other_line_is_left_to_the_json_reader(odd: str) -> None:
    found = prefixes([line(), odd, line()])
    assert found is not None
    assert found.simple.tolist() == [True, False, True]
    assert found.event_type.to_pylist() == ["click", "click"]
    alone = prefixes([odd])
    assert alone is None or not alone.simple.any() or json.loads(odd)["sourceId"] != SOURCE


def test_bytes_that_are_no_text_are_not_simple() -> None:
    good = line(event_type="?").encode()
    buffer = good.replace(b"?", b"\xff") + b"\n"
    commas = np.array([buffer.find(b',"payload":')])
    zero = np.zeros(1, np.int64)
    assert read_prefixes(buffer, zero, commas, zero) is None
