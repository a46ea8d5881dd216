"""One record of every kind that there is or that somebody could forge, each at offset 0."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.envelope import MAX_TIMESTAMP_MS
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import Reject
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.records import (
    arrow,
    arrow_bytes,
    block,
    gateway_line,
    rejects_block,
    strange,
)

EVENT = b'{"sourceId":"s","eventType":"t","payload":{"a":1}}'
LINE = gateway_line(b'{"eventType":"t","payload":{"a":1}}')
VERSIONED = EVENT.replace(b'"eventType"', b'"metadata":{"version":"own"},"eventType"')
VERSIONED_LINE = gateway_line(
    b'{"eventType":"t","metadata":{"version":"own"},"timestamp":1,"payload":{}}'
)
ARROW_EVENT = {"sourceId": ["s", "s"], "eventType": ["t", None], "payload": ["{}", "{}"]}
REJECTS = [
    Reject.of(0, Reason.NOT_UTF8, "not UTF-8", b"\xff"),
    Reject.of(3, Reason.MALFORMED_JSON, "no JSON", b"x"),
]


def forged_rejects(**columns: list[Any]) -> Record:
    """A block of two rejects with other values in some columns."""
    record = rejects_block(REJECTS)
    table = pa.ipc.open_stream(record.value).read_all()
    for name, values in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    return record._replace(value=arrow_bytes(table))


# name → (record at offset 0, number of rows)
RECORDS: dict[str, tuple[Record, int]] = {
    "gateway block": (block([LINE, LINE]), 2),
    "rejects": (rejects_block(REJECTS), 2),
    "stranger": (strange(EVENT), 1),
    "stranger as JSON": (strange(EVENT, content_type="application/json; charset=utf-8"), 1),
    "stranger, media type in capitals": (strange(EVENT, content_type="Application/JSON"), 1),
    "strangers' NDJSON": (strange(EVENT + b"\r\n\n  \n" + EVENT + b"\n"), 2),
    "pretty JSON": (strange(EVENT.replace(b",", b",\n  ")), 1),
    "one line of two is bad": (strange(EVENT + b"\nnonsense\n" + EVENT), 3),
    "not UTF-8": (strange(b"\xff\xfe"), 1),
    "not UTF-8, two lines": (strange(b"\xff\n\xfe"), 2),
    "tombstone": (strange(b""), 0),
    "white space": (strange(b" \r\n\t\n"), 0),
    "block of white space": (block([b" ", b"\r"]), 2),
    "block of line ends": (block([b"", b"", b""]), 0),
    "block of nothing": (block([]), 0),
    "block with blank lines": (block([b"", LINE, b"", LINE, b""]), 2),
    "block with a bad line": (block([LINE, b'{"eventId":', LINE]), 3),
    "block not UTF-8 in the payload": (
        block([LINE, LINE.replace(b'"a"', b'"\xff"'), LINE]),
        3,
    ),
    "block not UTF-8 before the payload": (
        block([LINE, LINE.replace(b'"eventType":"t"', b'"eventType":"\xff"'), LINE]),
        3,
    ),
    "forged time": (block([LINE.replace(str(NOW).encode(), b"9" * 20)]), 1),
    "forged time beyond the years": (block([LINE.replace(str(NOW).encode(), b"9" * 18)]), 1),
    "forged counts": (
        block([LINE])._replace(
            headers={**block([LINE]).headers, blocks.COUNTS: b'{"a":99999999999999999999}'}
        ),
        1,
    ),
    "forged headers": (
        block([LINE])._replace(
            headers=dict.fromkeys(
                (blocks.TENANT, blocks.SCHEMA_VERSION, blocks.BATCH, blocks.COUNTS), b"\xff\xfe"
            )
            | {
                blocks.BLOCK: b"\xff",
                blocks.VERDICT: blocks.VALID.encode(),
                blocks.CONTENT_TYPE: blocks.NDJSON.encode(),
            }
        ),
        1,
    ),
    "a block's header alone": (strange(EVENT, headers={blocks.BLOCK: b"x"}), 1),
    "unknown content type": (strange(EVENT + b"\n" + EVENT, content_type="text/csv"), 1),
    "content type not ASCII": (strange(EVENT, headers={blocks.CONTENT_TYPE: b"\xff\x00"}), 1),
    "Arrow": (arrow(ARROW_EVENT), 2),
    "Arrow without rows": (arrow({k: pa.array([], pa.string()) for k in ARROW_EVENT}), 0),
    "Arrow without a column": (arrow({"sourceId": ["s"], "payload": ["{}"]}), 1),
    "Arrow with a column twice": (arrow({**ARROW_EVENT, "source_id": ["s", "s"]}), 1),
    "Arrow of other types": (arrow({**ARROW_EVENT, "timestamp": [[1], [2]]}), 1),
    "Arrow, time far away": (arrow({**ARROW_EVENT, "timestamp": [2**62, -(2**62)]}), 2),
    "Arrow, a tag twice": (
        arrow(
            {
                **ARROW_EVENT,
                "tags": pa.array(
                    [[("a", "1"), ("a", "2")], None], pa.map_(pa.string(), pa.string())
                ),
            }
        ),
        2,
    ),
    "not Arrow": (strange(EVENT, content_type=blocks.ARROW), 1),
    "Arrow cut off": (strange(arrow_bytes(ARROW_EVENT)[:-200], content_type=blocks.ARROW), 1),
    "rejects that are events": (
        arrow(ARROW_EVENT)._replace(headers=rejects_block(REJECTS).headers),
        1,
    ),
    "rejects that are text": (
        strange(EVENT)._replace(headers=rejects_block(REJECTS).headers),
        1,
    ),
    "rejects from the year 300000": (forged_rejects(received_at=[10**18, 10**18]), 1),
    "rejects from the last microsecond": (
        forged_rejects(received_at=[NOW, MAX_TIMESTAMP_MS * 1000 + 999]),
        1,
    ),
    "rejects without a reason": (forged_rejects(reason=["not_utf8", None]), 1),
    "rejects for no known reason": (forged_rejects(reason=["not_utf8", "not_utf9"]), 1),
    "rejects without bytes": (forged_rejects(raw=[None, b"x"]), 1),
    "rejects without a request": (forged_rejects(request_hash=[None, "ab"]), 1),
    "rejects without rows": (rejects_block([]), 0),
    "Arrow with line breaks": (
        arrow({**ARROW_EVENT, "payload": ['{"a":\n1}', '{\n"b":'], "eventType": ["t", "t"]}),
        2,
    ),
    "Arrow with a block's header": (
        arrow(ARROW_EVENT, headers={blocks.BLOCK: b"x", blocks.VERDICT: b"valid"}),
        2,
    ),
    "pretty JSON with a block's headers": (
        strange(
            EVENT.replace(b",", b",\n"),
            content_type="application/json",
            headers={blocks.BLOCK: b"x", blocks.VERDICT: b"valid"},
        ),
        1,
    ),
    "a version of the record and of its events": (
        strange(EVENT + b"\n" + VERSIONED + b"\nx", headers={blocks.SCHEMA_VERSION: b"record's"}),
        3,
    ),
    "only versions of events": (strange(VERSIONED, headers={blocks.SCHEMA_VERSION: b"r"}), 1),
    "versions in a block": (block([VERSIONED_LINE, LINE, VERSIONED_LINE]), 3),
    "a block of another tenant, its first line bad": (
        block([b"{}", LINE], tenant="tenant é", batch_id="b"),
        2,
    ),
    "no time": (strange(EVENT, timestamp_ms=-1), 1),
    "time beyond the years": (strange(EVENT, timestamp_ms=2**62), 1),
    "time before the years, Arrow": (arrow(ARROW_EVENT, timestamp_ms=-(2**63)), 2),
    "time beyond the years, undecodable": (
        strange(b"x", content_type="text/csv", timestamp_ms=2**63 - 1),
        1,
    ),
}
