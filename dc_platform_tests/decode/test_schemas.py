"""Schemas where records are read: strangers' events are judged alike by every reader, and flags are
the same whoever reads, whenever.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.envelope import Passed
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import Reject, encode_rejects
from dc_platform.contracts.schema import definition_of
from dc_platform.contracts.schema_check import Checker, Rules
from dc_platform.decode import blocks as block_reader
from dc_platform.decode import strangers
from dc_platform.decode.columns import plain
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Policy, lines_of, read_lines
from dc_platform_tests.helpers.events import HOUR, NOW, some_uuid
from dc_platform_tests.helpers.records import (
    NEVER,
    SOURCE,
    TOPIC_ID,
    Registered,
    arrow,
    block,
    gateway_line,
    rows,
    strange,
)

FAILED, FREE = SOURCE.replace("0", "1"), SOURCE.replace("0", "2")


def checker(schema_id: str, version: int, *extra: dict[str, Any]) -> Checker:
    content = {
        "fields": [{"name": "n", "type": "NUMBER", "required": True}],
        "validations": [{"field": "n", "rule": "range", "min": 0, "max": 9}, *extra],
    }
    return Checker(schema_id, version, "numbers", definition_of(content))


SEVEN = {"field": "n", "rule": "expected", "max": 7}
WARNS = {"field": "n", "rule": "range", "max": 5, "action": "WARN"}
FAILS = {"field": "n", "rule": "range", "min": -5, "action": "FAIL"}
RULES = {
    SOURCE: Rules({"": checker("all", 2, SEVEN, WARNS, FAILS), "click": checker("click", 12)}),
    FAILED: Rules({}, "it has failed"),
}
HISTORY = Registered(
    {SOURCE: ("acme", 0, None), FAILED: ("acme", 0, None), FREE: ("free", 0, None)}, RULES
)
POLICY = Policy(HOUR, 3_000, NEVER)
DECODER = Decoder(TOPIC_ID, HISTORY, POLICY)


def event(payload: Any, source: str = SOURCE, kind: str = "t", **more: Any) -> dict[str, Any]:
    return {"sourceId": source, "eventType": kind, "payload": payload, **more}


def judged(records: list[Record], decoder: Decoder = DECODER) -> list[dict[str, Any]]:
    return rows(plain(decoder.decode(records)))


@pytest.mark.parametrize(
    ("sent", "reason", "flags", "judged_by", "version"),
    [
        (event({"n": 1}), None, None, "all/2", "2"),
        (event({"n": 1}, metadata={"version": "app 7"}), None, None, "all/2", "app 7"),
        (event({"n": 6}), None, ["warn:n:range"], "all/2", "2"),
        (event({"n": 8}), None, ["anomaly:n", "warn:n:range"], "all/2", "2"),
        (event({"n": 8}, kind="click"), None, None, "click/12", "12"),
        (event({"n": -1}), Reason.VALUE_OUT_OF_RANGE, None, "all/2", "2"),
        (event({"n": -9}), Reason.FAILED_BY_RULE, None, "all/2", "2"),
        (event({}, kind="click"), Reason.MISSING_FIELD, None, "click/12", "12"),
        (event({"n": 1}, FAILED), Reason.SOURCE_FAILED, None, None, "1"),
        (event({"n": "any"}, FREE), None, None, None, "1"),
    ],
)
def test_a_strangers_event_is_judged_by_its_source(
    sent: dict[str, Any], reason: Any, flags: Any, judged_by: str | None, version: str
) -> None:
    columns = {
        "sourceId": [sent["sourceId"]],
        "eventType": [sent["eventType"]],
        "payload": [json.dumps(sent["payload"])],
        "version": [sent.get("metadata", {}).get("version")],
    }
    for record in (strange(json.dumps(sent).encode()), arrow(columns)):
        [row] = judged([record])
        assert row["reason"] == reason, row["message"]
        assert (row["flags"], row["judged_by"]) == (flags, judged_by)
        assert row["schema_version"] == version
        assert row["tenant_id"] == ("free" if sent["sourceId"] == FREE else "acme")


payloads = st.sampled_from(
    ({"n": 1}, {"n": 6}, {"n": 8.5}, {"n": 99}, {"n": -9}, {"n": None}, {"n": "x"}, {}, {"m": [1]})
)
sent = st.builds(
    event,
    payloads,
    st.sampled_from((SOURCE, SOURCE.upper(), FAILED, FREE)),
    st.sampled_from(("t", "click", "é")),
)


@given(st.lists(sent, min_size=1, max_size=12))
def test_columns_and_the_strict_judge_agree(events: list[dict[str, Any]]) -> None:
    records = [strange(json.dumps(e).encode(), i) for i, e in enumerate(events)]
    lines = lines_of(records)
    table = read_lines(lines, records, topic_id=TOPIC_ID, sources=HISTORY, policy=POLICY)
    expected = rows(plain(table))
    assert judged(records) == expected
    columns = {
        "sourceId": [e["sourceId"] for e in events],
        "eventType": [e["eventType"] for e in events],
        "payload": [json.dumps(e["payload"]) for e in events],
    }
    same = ("source_id", "verdict", "reason", "message", "flags", "judged_by", "schema_version")
    by_arrow = [tuple(row[n] for n in same) for row in judged([arrow(columns)])]
    assert by_arrow == [tuple(row[n] for n in same) for row in expected]


def test_sources_without_a_schema_and_events_that_fit_stay_in_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    strict = strangers._Judge.verdict

    def counted(judge: Any, line: Any) -> Any:
        asked.append(line)
        return strict(judge, line)

    monkeypatch.setattr(strangers._Judge, "verdict", counted)
    fits = [event({"n": 1}, source, eventId=some_uuid(1)) for source in (SOURCE, FREE)]
    judged([strange(json.dumps(e).encode(), i) for i, e in enumerate(fits)])
    assert asked == []
    judged([strange(json.dumps(event({"n": 6})).encode())])
    assert len(asked) == 1


def test_a_gateways_stamp_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the registry says something else by now; and in columns, flagged or not."""
    monkeypatch.setattr(block_reader, "_type_prefixes", None)
    raw = b'{"eventType":"t","timestamp":%d,"payload":{"n":-9}}' % NOW
    lines = [
        gateway_line(raw, judged=judged_)
        for judged_ in (None, Passed("old/1"), Passed("old/12", ("warn:n:range", "anomaly:n")))
    ]
    found = judged([block(lines)])
    assert [row["verdict"] for row in found] == [blocks.VALID] * 3
    assert [row["judged_by"] for row in found] == [None, "old/1", "old/12"]
    assert [row["schema_version"] for row in found] == ["1", "1", "12"]
    assert [row["flags"] for row in found] == [None, None, ["warn:n:range", "anomaly:n"]]


def test_a_client_cannot_stamp_its_event() -> None:
    raw = b'{"eventType":"t","payload":{},"metadata":{"judgedBy":"x/9","flagged":["late"],"k":1}}'
    line = gateway_line(raw)
    assert b"judgedBy" not in line
    assert b"flagged" not in line
    assert b'"k":1' in line
    sent_ = raw.replace(b'{"eventType"', b'{"sourceId":"%b","eventType"' % FREE.encode())
    [row] = judged([strange(sent_)])
    assert (row["judged_by"], row["flags"], row["schema_version"]) == (None, None, "1")


def test_rejected_events_keep_the_schema_that_refused_them() -> None:
    rejects = [Reject.of(0, Reason.NOT_IN_ENUM, "no", b"{}", "orders/4")]
    headers = blocks.block_headers(
        blocks.BlockId("g", "b", 0),
        content_type=blocks.ARROW,
        verdict=blocks.REJECTED,
        tenant="acme",
        counts={SOURCE: 1},
        judged_by="orders/4",
    )
    value = encode_rejects(rejects, source_id=SOURCE, request_hash="ab", received_at_ms=NOW)
    [row] = judged([Record(0, 0, NOW, dict(headers), value)])
    assert (row["judged_by"], row["schema_version"]) == ("orders/4", "4")
    assert (row["reason"], row["flags"]) == (Reason.NOT_IN_ENUM, None)


@pytest.mark.parametrize(("ago", "late"), [(0, False), (HOUR, False), (HOUR + 1, True)])
def test_late_is_what_came_an_hour_after_its_time(ago: int, late: bool) -> None:
    decoder = Decoder(TOPIC_ID, HISTORY, Policy(late_ms=HOUR))
    raw = b'{"eventType":"t","timestamp":%d,"payload":{"n":6}}' % (NOW - ago)
    stamped = gateway_line(raw, judged=Passed("all/2", ("warn:n:range",)))
    records = [
        block([gateway_line(raw), stamped]),
        strange(json.dumps(event({"n": 6}, FREE, timestamp=NOW - ago)).encode(), 1),
        strange(json.dumps(event({"n": 6}, timestamp=NOW - ago)).encode(), 2),
        strange(json.dumps(event({"n": 99}, timestamp=NOW - ago)).encode(), 3),
        strange(json.dumps(event({"n": 6}, FREE)).encode(), 4),
    ]
    mark = ["late"] if late else []
    plainly = mark or None
    warned = [*mark, "warn:n:range"]
    assert [row["flags"] for row in judged(records, decoder)] == [
        plainly,
        warned,
        plainly,
        warned,
        None,
        None,
    ]
    # Each alone gives the same.
    alone = [row["flags"] for record in records for row in judged([record], decoder)]
    assert alone == [row["flags"] for row in judged(records, decoder)]
