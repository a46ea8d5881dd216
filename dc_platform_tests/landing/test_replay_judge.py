"""A quarantined row under today's rules: what passes, as which event, and what still does not."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.broker.records import Record
from dc_platform.contracts import identity
from dc_platform.contracts.floors import Floor, Floors
from dc_platform.contracts.merge_patch import Patch
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.schema import definition_of
from dc_platform.contracts.schema_check import Checker, Rules
from dc_platform.landing.replay_blocks import blocks_of
from dc_platform.landing.replay_judge import Failed, Passed, Quarantined, Rejudge, Today
from dc_platform_tests.helpers.events import HOUR, NOW, events
from dc_platform_tests.helpers.landing import decoder
from dc_platform_tests.helpers.records import SOURCE, Registered, block, rows

OTHER = "1c9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a02"
GOOD = b'{"eventType":"t","payload":{"n":1}}'
BODY = hashlib.sha256(b"some body").hexdigest()


def row(raw: bytes = GOOD, reason: Reason = Reason.WRONG_TYPE, **more: Any) -> Quarantined:
    source = more.get("source_id", SOURCE)
    request = hashlib.sha256(f"{source}:{more.pop('body', BODY)}".encode()).hexdigest()
    columns = {
        "quarantine_id": identity.quarantine_id(source or "", request, 3),
        "tenant_id": "default",
        "source_id": source,
        "reason": reason.value,
        "message": "what it was",
        "raw": raw,
        "raw_length": len(raw),
        "raw_sha256": hashlib.sha256(raw).hexdigest(),
        "request_hash": request,
        "received_at": datetime.fromtimestamp(NOW / 1000, UTC),
        "done": [],
    }
    return Quarantined(**{**columns, **more})


def body(raw: bytes, reason: Reason = Reason.MALFORMED_JSON, **more: Any) -> Quarantined:
    """A row that holds a request's body."""
    return row(raw, reason, body=hashlib.sha256(raw).hexdigest(), **more)


TENANTS = {SOURCE: ("default", 0, None), OTHER: ("second", 0, None)}
NOW_ASKED = Today(Registered(TENANTS))


def judged(
    quarantined: Quarantined, patch: Patch | None = None, today: Today = NOW_ASKED
) -> list[Passed | Failed]:
    judge = Rejudge(today, future_limit_ms=HOUR, max_event_bytes=1000, patch=patch)
    return list(judge.events(quarantined))


def passed(quarantined: Quarantined, patch: Patch | None = None) -> Passed:
    [verdict] = judged(quarantined, patch)
    assert isinstance(verdict, Passed), verdict
    return verdict


def reason_of(quarantined: Quarantined, patch: Patch | None = None) -> Reason:
    [verdict] = judged(quarantined, patch)
    assert isinstance(verdict, Failed), verdict
    return verdict.why.reason


def test_an_event_passes_as_its_source_would_have_sent_it() -> None:
    event = passed(row(b'{"eventId":"a","eventType":"t","timestamp":5,"payload":{"p":1.10}}'))
    line = json.loads(event.line)
    assert line["metadata"] == {"receivedAt": NOW, "clientEventId": "a"}
    assert (line["sourceId"], line["timestamp"]) == (SOURCE, 5)
    assert line["eventId"] == event.event_id == identity.event_id_from_text(SOURCE, "a")[0]
    assert event.line.endswith(b'"payload":{"p":1.10}}')


def rules(*, least: int) -> Rules:
    content = {
        "fields": [{"name": "n", "type": "NUMBER"}],
        "validations": [
            {"field": "n", "rule": "range", "min": least},
            {"field": "n", "rule": "range", "max": 8, "action": "WARN"},
        ],
    }
    return Rules({"": Checker("schema", 2, "s", definition_of(content))})


@pytest.mark.parametrize(("least", "passes"), [(1, True), (10, False)])
def test_the_schema_of_today_decides(least: int, passes: bool) -> None:
    event = row(b'{"eventType":"t","payload":{"n":9}}', Reason.VALUE_OUT_OF_RANGE)
    [verdict] = judged(event, today=Today(Registered(TENANTS, {SOURCE: rules(least=least)})))
    if passes:
        assert isinstance(verdict, Passed)
        metadata = json.loads(verdict.line)["metadata"]
        assert (metadata["judgedBy"], metadata["flagged"]) == ("schema/2", ["warn:n:range"])
    else:
        assert isinstance(verdict, Failed)
        assert verdict.why.reason == Reason.VALUE_OUT_OF_RANGE


def test_what_retention_has_deleted_does_not_come_back_this_way() -> None:
    floor = Floors([Floor("default", "t", frozenset(), NOW, NOW)])
    today = Today(Registered(TENANTS), floor, clock=lambda: NOW + 1)
    [old] = judged(row(b'{"eventType":"t","timestamp":5,"payload":{}}'), today=today)
    assert isinstance(old, Failed)
    assert old.why.reason == Reason.TOO_OLD
    [young] = judged(row(b'{"eventType":"t","timestamp":%d,"payload":{}}' % NOW), today=today)
    assert isinstance(young, Passed)


def test_without_an_id_the_bytes_in_quarantine_name_it() -> None:
    first, again = passed(row()), passed(row(), {"payload": {"n": 2}})
    assert first.event_id == again.event_id
    assert first.line != again.line
    assert passed(row(request_hash="cd" * 32, quarantine_id=OTHER)).event_id != first.event_id


def test_the_future_is_still_that_of_the_first_receipt() -> None:
    ahead = b'{"eventType":"t","payload":{},"timestamp":%d}' % (NOW + HOUR + 1)
    assert reason_of(row(ahead, Reason.TIMESTAMP_IN_FUTURE)) is Reason.TIMESTAMP_IN_FUTURE
    assert passed(row(ahead), {"timestamp": NOW}).line.count(b"%d" % NOW) == 2


@pytest.mark.parametrize(
    ("raw", "more", "reason"),
    [
        (b"{broken", {}, Reason.MALFORMED_JSON),
        (b"[1]", {}, Reason.NOT_AN_OBJECT),
        (b'{"eventType":"t","payload":{"t":"%s"}}' % (b"x" * 1000), {}, Reason.EVENT_TOO_LARGE),
        (GOOD, {"source_id": "gone"}, Reason.UNKNOWN_SOURCE),
        (GOOD, {"source_id": None}, Reason.MISSING_FIELD),
        (GOOD[:-1] + b',"sourceId":"%s"}' % OTHER.encode(), {}, Reason.SOURCE_MISMATCH),
    ],
)
def test_what_still_does_not_pass_says_why(
    raw: bytes, more: dict[str, Any], reason: Reason
) -> None:
    assert reason_of(row(raw, **more)) is reason


def test_a_stranger_that_named_no_source_gets_one_by_a_patch() -> None:
    event = passed(row(source_id=None), {"sourceId": OTHER.upper()})
    assert (event.tenant_id, event.source_id) == ("second", OTHER)


def test_a_named_source_that_is_not_the_senders_is_taken_out_by_a_patch() -> None:
    named = GOOD[:-1] + b',"sourceId":"%s"}' % OTHER.encode()
    assert passed(row(named, Reason.SOURCE_MISMATCH), {"sourceId": None}).source_id == SOURCE


def test_bytes_that_were_not_kept_whole_stay() -> None:
    cut = body(b"zzz", Reason.BODY_TOO_LARGE, raw_length=11_000_000)
    [verdict] = judged(cut)
    assert isinstance(verdict, Failed)
    assert (verdict.why.reason, "only 3 were kept" in verdict.why.message) == (cut.reason, True)


@pytest.mark.parametrize("raw", [b"[%s,%s]", b'{"events":[%s,%s]}', b"%s\n%s"])
def test_a_body_is_opened_and_each_event_judged(raw: bytes) -> None:
    both = body(raw % (GOOD, b'{"eventType":7,"payload":{}}'))
    first, second = judged(both)
    assert isinstance(first, Passed)
    assert isinstance(second, Failed)
    assert (first.position, second.position, second.why.reason) == (0, 1, Reason.WRONG_TYPE)
    ids = [v.event_id for v in judged(both, {"eventType": "t"}) if isinstance(v, Passed)]
    assert len(set(ids)) == 2
    assert ids[0] == first.event_id
    # An event of a body is not opened: its array is what was wrong.
    assert reason_of(row(b"[%s]" % GOOD)) is Reason.NOT_AN_OBJECT


def test_of_a_body_only_what_is_not_done_is_judged() -> None:
    [verdict] = judged(body(b"[%s,%s,%s]" % (GOOD, GOOD, GOOD), done=[0, 2]))
    assert isinstance(verdict, Passed)
    assert verdict.position == 1


@pytest.mark.parametrize("reason", [Reason.UNSUPPORTED_CONTENT_TYPE, Reason.UNDECODABLE_BLOCK])
def test_a_record_under_a_wrong_header_is_opened(reason: Reason) -> None:
    named = GOOD[:-1] + b',"sourceId":"%s"}' % SOURCE.encode()
    found = judged(row(b"\n".join([named, named]), reason, source_id=None))
    assert [type(verdict) for verdict in found] == [Passed, Passed]
    assert reason_of(row(b"\xff\xfe", reason, source_id=None)) is reason


def test_a_body_that_cannot_be_opened_keeps_its_reason() -> None:
    assert reason_of(body(b"\x1f\x8b no gzip", Reason.BAD_COMPRESSION)) is Reason.BAD_COMPRESSION


@given(st.lists(events(source_id=SOURCE), min_size=1, max_size=4))
def test_whatever_passes_is_read_by_landing_as_that_event(raws: list[bytes]) -> None:
    found = [v for n, raw in enumerate(raws) for v in judged(row(raw, quarantine_id=_id(n)))]
    good = [verdict for verdict in found if isinstance(verdict, Passed)]
    records: list[Record] = []
    expected: list[str] = []
    for number, sent in enumerate(blocks_of(good)):
        lines = [event.line for event in sent.events]
        assert sent.value == b"\n".join(lines)
        records.append(block(lines, number))
        expected += [event.event_id for event in sent.events]
    landed = rows(decoder().decode(records)) if records else []
    assert [r["event_id"] for r in landed] == expected
    assert {r["verdict"] for r in landed} <= {"valid"}
    assert {r["received_at"].timestamp() for r in landed} <= {NOW / 1000}


def _id(number: int) -> str:
    return identity.quarantine_id(SOURCE, BODY, number)


def test_blocks_hold_one_source_and_are_named_by_their_bytes() -> None:
    def some(source: str, first: int, count: int) -> list[Passed]:
        return [
            passed(row(source_id=source, quarantine_id=_id(n))) for n in range(first, first + count)
        ]

    mixed = some(SOURCE, 0, 900) + some(OTHER, 900, 10) + some(SOURCE, 910, 300)
    made = list(blocks_of(mixed))
    assert [len(b.events) for b in made] == [1000, 200, 10]
    assert all(len({e.source_id for e in b.events}) == 1 for b in made)
    assert [b.id for b in made] == [b.id for b in blocks_of(mixed)]
    assert len({str(b.id) for b in [*made, *blocks_of(mixed[1:])]}) > len(made)
