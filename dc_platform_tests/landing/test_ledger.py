"""The ledger balances whatever is delivered, and what is taken away is named by source and hour."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks, identity
from dc_platform.contracts.acks import Ack, Count, hour_of
from dc_platform.contracts.envelope import Envelope, judge_event
from dc_platform.contracts.lines import canonical_line
from dc_platform.contracts.ops_tables import ACKS, GAPS, LEDGER
from dc_platform.contracts.rejects import encode_rejects
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder
from dc_platform.lake.cleaning import expire_log
from dc_platform.lake.gaps import DELETED, KnownGap, record_gaps
from dc_platform.lake.ledger import Updated, is_due, ledger_rows, update_ledger
from dc_platform.lake.ledger_findings import reasons_of, totals, unbalanced
from dc_platform.lake.origins import keep_origin
from dc_platform.lake.parquet import write_file
from dc_platform.lake.rewrite import Cancellation, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.acks import ack_rows
from dc_platform.landing.batch import Batch, Gap, Range
from dc_platform_tests.helpers.compaction import compact_all
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.landing import (
    CLOCK,
    INFO,
    CrashError,
    committer,
    crash_at,
    decoder,
    event,
    land_again,
    reject,
)
from dc_platform_tests.helpers.records import TOPIC_ID, strange

A = "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01"
B = "1b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a02"
EVER = datetime(1970, 1, 1, tzinfo=UTC)
FIGURES = ("received", "landed", "duplicates", "rejected", "gap", "in_flight", "missing")
Cell = tuple[str | None, int]


class Sent(NamedTuple):
    """A record and who is told what of it. `cells` are its events by source and hour."""

    record: Record
    ack: Ack | None
    cells: Counter[Cell]


def line(number: int, source: str, hour: int) -> bytes:
    """An accepted event as a gateway writes it, received `hour` hours after NOW."""
    raw = event(number)
    verdict = judge_event(raw, reference_ms=NOW, future_limit_ms=HOUR, max_bytes=1 << 20)
    assert isinstance(verdict, Envelope)
    event_id, client_id = identity.event_id_from_text(source, verdict.eventId or "")
    return canonical_line(
        verdict,
        raw,
        source_id=source,
        event_id=event_id,
        client_event_id=client_id,
        received_at_ms=NOW + hour * HOUR,
    )


def valid(
    offset: int, events: Sequence[tuple[int, str, int]], *, acked: bool = True, partition: int = 0
) -> Sent:
    """A gateway's block of (number, source, hour)."""
    cells = Counter((source, hour_of(NOW) + hour) for _, source, hour in events)
    value = b"\n".join(line(*one) for one in events)
    return _sent(offset, value, blocks.VALID, blocks.NDJSON, cells, acked, partition)


def rejected(
    offset: int, numbers: Sequence[int], source: str = A, *, acked: bool = True, partition: int = 0
) -> Sent:
    """A gateway's block of rejected events."""
    value = encode_rejects(
        [reject(n) for n in numbers], source_id=source, request_hash="ab", received_at_ms=NOW
    )
    cells: Counter[Cell] = Counter({(source, hour_of(NOW)): len(numbers)})
    return _sent(offset, value, blocks.REJECTED, blocks.ARROW, cells, acked, partition)


def _sent(
    offset: int,
    value: bytes,
    verdict: str,
    content_type: str,
    cells: Counter[Cell],
    acked: bool,
    partition: int,
) -> Sent:
    name = blocks.BlockId("g", f"boot{partition}", offset)
    counts: Counter[str] = Counter()
    for (source, _), events in cells.items():
        counts[str(source)] += events
    headers = blocks.block_headers(
        name, content_type=content_type, verdict=verdict, tenant="default", counts=dict(counts)
    )
    record = Record(partition, offset, NOW, dict(headers), value)
    told = [Count(str(source), hour, events) for (source, hour), events in cells.items()]
    ack = Ack(str(name), "default", TOPIC_ID, partition, offset, verdict, NOW, told)
    return Sent(record, ack if acked else None, cells)


def stranger(offset: int, number: int, *, partition: int = 0) -> Sent:
    """A record that no gateway wrote."""
    raw = event(number).replace(b"{", b'{"sourceId":"%s",' % A.encode(), 1)
    cells: Counter[Cell] = Counter({(A, hour_of(NOW)): 1})
    return Sent(strange(raw, offset, partition=partition), None, cells)


def nonsense(offset: int, *, partition: int = 0) -> Sent:
    """A stranger's record that names no source."""
    cells: Counter[Cell] = Counter({(None, hour_of(NOW)): 1})
    return Sent(strange(b"nonsense", offset, partition=partition), None, cells)


def tell(lake: Lake, sent: Sequence[Sent]) -> None:
    """Land the acknowledgements."""
    lake.ensure(ACKS)
    rows = ack_rows([one.ack for one in sent if one.ack], CLOCK)
    if len(rows):
        file = write_file(lake, ACKS, rows, partition=CLOCK.date())
        LakeTable(lake, ACKS).commit([file], txns={}, exact=True)


def land(lake: Lake, sent: Sequence[Sent], *, vanish: Sequence[Sent] = ()) -> None:
    """Land records; of those in `vanish` the offsets are covered, and nothing else is left."""
    run = committer(lake)
    run.land(batch_of(sent, run.offsets, vanish))
    run.close()


def batch_of(
    sent: Sequence[Sent], starts: dict[int, int | None], vanish: Sequence[Sent] = ()
) -> Batch:
    everything = [one.record for one in (*sent, *vanish)]
    ranges = {
        p: Range(starts[p] or 0, max(r.offset for r in everything if r.partition == p) + 1)
        for p in {r.partition for r in everything}
    }
    return Batch(decoder().decode([one.record for one in sent]), ranges, 0)


def cells(lake: Lake) -> dict[Cell, dict[str, int]]:
    """The ledger: source and hour → the figures that are not 0."""
    found = {}
    for row in ledger_rows(lake, EVER).to_pylist():
        hour = int(row["hour"].timestamp() // 3600)
        found[row["source_id"], hour] = {name: row[name] for name in FIGURES if row[name]}
    return found


def delete(lake: Lake, spec: Any, where: str) -> None:
    """What somebody does who deletes rows of a table."""
    assert DeltaTable(lake.uri_of(spec)).delete(where)["num_deleted_rows"] == 1


H = hour_of(NOW)

# --- normal life ---


def test_duplicates_rejects_strangers_and_lost_acknowledgements_balance(lake: Lake) -> None:
    sent = [
        valid(0, [(1, A, 0), (2, A, 0), (2, A, 0), (3, B, 1)]),
        rejected(1, [1, 2]),
        stranger(2, 1),
        stranger(3, 4),
        nonsense(4),
        valid(5, [(1, A, 1), (5, B, 0)], acked=False),
        valid(0, [(3, B, 0)], partition=1),
        rejected(1, [2, 3], partition=1, acked=False),
    ]
    tell(lake, sent)
    land(lake, sent)
    assert update_ledger(lake).hours is None
    assert cells(lake) == {
        (A, H): {"received": 9, "landed": 3, "duplicates": 2, "rejected": 4},
        (A, H + 1): {"received": 1, "duplicates": 1},
        # Partition 0 comes first in a batch.
        (B, H): {"received": 2, "landed": 1, "duplicates": 1},
        (B, H + 1): {"received": 1, "landed": 1},
        (None, H): {"received": 1, "rejected": 1},
    }
    assert unbalanced(ledger_rows(lake, EVER)) == []
    assert totals(ledger_rows(lake, EVER))["received"] == 14


def test_what_was_acknowledged_and_not_reached_is_in_flight(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)]), valid(1, [(2, A, 0), (3, B, 0)]), valid(2, [(4, A, 0)])]
    tell(lake, sent)
    assert update_ledger(lake).rows == 2
    assert cells(lake)[A, H] == {"received": 3, "in_flight": 3}
    land(lake, sent[:2])
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 3, "landed": 2, "in_flight": 1}
    assert cells(lake)[B, H] == {"received": 1, "landed": 1}


@pytest.mark.parametrize("point", ["after bronze", "after quarantine", "silver written"])
def test_bronze_ahead_of_silver_is_in_flight(lake: Lake, point: str) -> None:
    sent = [valid(0, [(1, A, 0)]), valid(1, [(2, A, 0)]), rejected(2, [1])]
    tell(lake, sent)
    land(lake, sent[:1])
    run = committer(lake, reached=crash_at(point))
    with pytest.raises(CrashError):
        run.land(batch_of(sent[1:], run.offsets))
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 3, "landed": 1, "in_flight": 2}
    land_again(lake, [one.record for one in sent])
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 3, "landed": 2, "rejected": 1}


def test_a_row_of_a_gateway_that_did_not_know_the_topic_is_found_by_its_block(lake: Lake) -> None:
    for topic in ("", "00000000-0000-0000-0000-000000000009"):
        sent = valid(0, [(1, A, 0)])
        assert sent.ack is not None
        ack = Ack("g/boot0/0", "default", topic, 0, 0, "valid", NOW, sent.ack.counts)
        own = Lake(f"{lake.uri}-{topic}")
        tell(own, [sent._replace(ack=ack)])
        update_ledger(own)
        assert cells(own) == {(A, H): {"received": 1, "in_flight": 1}}
        land(own, [sent])
        update_ledger(own)
        assert cells(own) == {(A, H): {"received": 1, "landed": 1}}


# --- what is lost is named ---


def test_a_row_deleted_from_silver_is_missing(lake: Lake) -> None:
    sent = [valid(0, [(n, A, n % 2) for n in range(1, 9)]), valid(1, [(1, A, 0), (9, B, 0)])]
    tell(lake, sent)
    land(lake, sent)
    update_ledger(lake)
    assert unbalanced(ledger_rows(lake, EVER)) == []
    event_id = json.loads(event(3))["eventId"]
    delete(lake, SILVER_EVENTS, f"event_id = '{event_id}'")
    assert update_ledger(lake) == Updated(2, 3, LakeTable(lake, LEDGER).version)
    (found,) = unbalanced(ledger_rows(lake, EVER))
    assert (found["source_id"], found["hour"].timestamp() // 3600) == (A, H + 1)
    assert found["missing"] == 1
    assert json.loads(found["examples"]) == [
        {"block": None, "partition": 0, "offset": 0, "index": 2, "event": event_id, "events": 1}
    ]


def test_a_deleted_row_that_came_twice_is_missing_once(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)]), valid(1, [(1, A, 3)]), valid(2, [(1, A, 3), (2, A, 3)])]
    tell(lake, sent)
    land(lake, sent)
    event_id = json.loads(event(1))["eventId"]
    delete(lake, SILVER_EVENTS, f"event_id = '{event_id}'")
    update_ledger(lake)
    assert cells(lake) == {
        (A, H): {"received": 1, "missing": 1},
        (A, H + 3): {"received": 3, "landed": 1, "duplicates": 2},
    }
    # However often it is made anew, and hour by hour.
    tell(lake, [valid(3, [(5, B, 3)])])
    assert update_ledger(lake).hours == 2
    assert cells(lake)[A, H + 3] == {"received": 3, "landed": 1, "duplicates": 2}


def test_a_row_deleted_from_quarantine_is_missing(lake: Lake) -> None:
    sent = [rejected(0, [1, 2]), nonsense(1)]
    tell(lake, sent)
    land(lake, sent)
    update_ledger(lake)
    delete(lake, SILVER_QUARANTINE, "request_index = 2")
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 2, "rejected": 1, "missing": 1}
    assert cells(lake)[None, H] == {"received": 1, "rejected": 1}


def test_a_reject_that_came_again_is_found_in_the_hour_of_the_first(lake: Lake) -> None:
    first = rejected(0, [1, 2])
    again = _sent(
        1,
        encode_rejects(
            [reject(n) for n in (1, 2)],
            source_id=A,
            request_hash="ab",
            received_at_ms=NOW + 40 * HOUR,
        ),
        blocks.REJECTED,
        blocks.ARROW,
        Counter({(A, H + 40): 2}),
        acked=True,
        partition=0,
    )
    for one in (first, again):
        tell(lake, [one])
        land(lake, [one])
        assert update_ledger(lake).hours in (None, 1)
    assert cells(lake) == {
        (A, H): {"received": 2, "rejected": 2},
        (A, H + 40): {"received": 2, "rejected": 2},
    }
    delete(lake, SILVER_QUARANTINE, "request_index = 2")
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 2, "rejected": 1, "missing": 1}


def test_a_block_that_vanished_is_missing_and_named(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)]), valid(1, [(2, B, 1), (3, B, 1)]), valid(2, [(4, A, 0)])]
    tell(lake, sent)
    land(lake, [sent[0], sent[2]], vanish=[sent[1]])
    update_ledger(lake)
    (found,) = unbalanced(ledger_rows(lake, EVER))
    assert (found["source_id"], found["missing"], found["gap"]) == (B, 2, 0)
    assert found["hour"].timestamp() // 3600 == H + 1
    (example,) = json.loads(found["examples"])
    assert (example["block"], example["offset"], example["events"]) == ("g/boot0/1", 1, 2)


def test_a_block_that_kafka_deleted_is_a_gap_and_named(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)]), valid(1, [(2, B, 1), (3, B, 1)]), valid(2, [(4, A, 0)])]
    tell(lake, sent)
    land(lake, sent[:1])
    run = committer(lake)
    made = batch_of(sent[2:], run.offsets)
    run.land(Batch(made.judged, made.ranges, 0, gaps=[Gap(0, 1, 2)]))
    update_ledger(lake)
    (found,) = unbalanced(ledger_rows(lake, EVER))
    assert (found["source_id"], found["missing"], found["gap"]) == (B, 0, 2)
    assert json.loads(found["examples"])[0]["block"] == "g/boot0/1"


def test_what_was_in_flight_in_a_topic_that_was_deleted_is_a_gap(lake: Lake) -> None:
    old = [valid(0, [(1, A, 0)]), valid(1, [(2, A, 0)])]
    tell(lake, old)
    land(lake, old[:1])
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 2, "landed": 1, "in_flight": 1}
    again = INFO._replace(topic_id="00000000-0000-0000-0000-00000000000a")
    run = committer(lake, info=again)
    judged = Decoder(again.topic_id, AnySource()).decode([valid(0, [(7, B, 0)]).record])
    run.land(Batch(judged, {0: Range(0, 1)}, 0))
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 2, "landed": 1, "gap": 1}


AGAIN = INFO._replace(topic_id="00000000-0000-0000-0000-00000000000a")


def land_in_another_topic(lake: Lake) -> None:
    """One event of B in the topic that came after."""
    run = committer(lake, info=AGAIN)
    # The number is part of the block's name, by which a block of any topic is found.
    one = valid(99, [(7, B, 0)], acked=False)
    judged = Decoder(AGAIN.topic_id, AnySource()).decode([one.record])
    run.land(Batch(judged, {0: Range(0, 100)}, 0))
    run.close()


def test_what_was_acknowledged_in_a_topic_that_was_deleted_before_it_landed_is_a_gap(
    lake: Lake,
) -> None:
    tell(lake, [valid(0, [(1, A, 0)])])
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 1, "in_flight": 1}
    land_in_another_topic(lake)
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 1, "gap": 1}
    assert json.loads(unbalanced(ledger_rows(lake, EVER))[0]["examples"])[0]["block"] == "g/boot0/0"


def test_of_a_topic_that_is_new_it_is_in_flight_while_the_one_before_lands(lake: Lake) -> None:
    sent = valid(0, [(1, A, 0)])
    assert sent.ack is not None
    land_in_another_topic(lake)
    now = round(datetime.now(UTC).timestamp() * 1000)
    tell(lake, [sent._replace(ack=msgspec.structs.replace(sent.ack, at_ms=now))])
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 1, "in_flight": 1}
    land(lake, [sent])
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 1, "landed": 1}


def test_of_a_partition_without_border_the_gaps_tell(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)], partition=1), valid(1, [(2, A, 0)], partition=1)]
    tell(lake, sent)
    lake.ensure(GAPS)
    record_gaps(lake, [KnownGap(TOPIC_ID, 1, 0, 1, DELETED)], CLOCK)
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 2, "gap": 1, "in_flight": 1}


def test_of_a_partition_that_an_old_topic_never_landed_nothing_comes(lake: Lake) -> None:
    now = round(datetime.now(UTC).timestamp() * 1000)
    lost = valid(0, [(1, A, 0)], partition=1)
    assert lost.ack is not None
    tell(lake, [lost._replace(ack=msgspec.structs.replace(lost.ack, at_ms=now))])
    run = committer(lake, (0,))
    run.land(batch_of([valid(0, [(2, B, 0)], acked=False)], run.offsets))
    run.close()
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 1, "in_flight": 1}
    land_in_another_topic(lake)
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 1, "gap": 1}


def test_what_is_in_flight_too_long_is_a_finding(lake: Lake) -> None:
    unknown = valid(0, [(1, A, 0)])
    assert unknown.ack is not None
    tell(lake, [unknown._replace(ack=msgspec.structs.replace(unknown.ack, topic_id="", offset=-1))])
    land_in_another_topic(lake)
    update_ledger(lake)
    rows = ledger_rows(lake, EVER)
    hour = datetime.fromtimestamp(H * 3600, UTC)
    late = hour + timedelta(hours=2)
    assert unbalanced(rows, late - timedelta(seconds=1)) == []
    (found,) = unbalanced(rows, late)
    assert (found["source_id"], found["hour"], found["in_flight"]) == (A, hour, 1)
    assert reasons_of(found, late) == ["in flight for more than an hour after its hour"]
    assert cells(lake)[A, H] == {"received": 1, "in_flight": 1}


def test_of_a_block_without_acknowledgement_the_header_counts(lake: Lake) -> None:
    whole = valid(0, [(1, A, 0), (2, A, 0), (3, A, 1)], acked=False)
    land(lake, [whole, valid(1, [(4, A, 0)])])
    update_ledger(lake)
    assert unbalanced(ledger_rows(lake, EVER)) == []
    lost = whole._replace(record=whole.record._replace(value=line(1, A, 0)))
    other = Lake(f"{lake.uri}-2")
    land(other, [lost])
    update_ledger(other)
    assert cells(other) == {(A, H): {"received": 3, "landed": 1, "missing": 2}}


def test_what_comes_of_a_damaged_block_is_not_what_was_acknowledged(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)]), valid(1, [(2, A, 0)]), valid(2, [(3, A, 0)])]
    values = (line(1, A, 0), b"damaged", line(3, A, 1))
    tell(lake, sent)
    land(
        lake,
        [
            one._replace(record=one.record._replace(value=value))
            for one, value in zip(sent, values, strict=True)
        ],
    )
    update_ledger(lake)
    assert cells(lake) == {
        (A, H): {"received": 3, "landed": 1, "missing": 2},
        (A, H + 1): {"received": 1, "landed": 1},
        (None, H): {"received": 1, "rejected": 1},
    }
    (found,) = unbalanced(ledger_rows(lake, EVER))
    assert [e["offset"] for e in json.loads(found["examples"])] == [1, 2]


def double(lake: Lake) -> None:
    """The rows of silver's only file once more."""
    table = LakeTable(lake, SILVER_EVENTS)
    (path,) = table.snapshot().paths
    rows = pq.ParquetFile(path).read().cast(SILVER_EVENTS.file_schema)
    table.commit(
        [write_file(lake, SILVER_EVENTS, rows, partition=CLOCK.date())], txns={}, exact=True
    )


def test_silver_doubled_is_too_many(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)])]
    tell(lake, sent)
    land(lake, sent)
    double(lake)
    update_ledger(lake)
    assert cells(lake) == {(A, H): {"received": 1, "landed": 2, "missing": -1}}


def test_a_row_that_is_there_twice_does_not_make_up_for_one_that_is_lost(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)]), valid(1, [(2, A, 0)])]
    tell(lake, sent)
    land(lake, sent[:1])
    double(lake)
    land(lake, sent[1:])
    twice, lost = (json.loads(event(n))["eventId"] for n in (1, 2))
    update_ledger(lake)
    assert cells(lake) == {(A, H): {"received": 2, "landed": 3, "missing": -1}}
    delete(lake, SILVER_EVENTS, f"event_id = '{lost}'")
    for _ in range(2):
        update_ledger(lake)
        assert cells(lake) == {(A, H): {"received": 2, "landed": 2}}
        (found,) = unbalanced(ledger_rows(lake, EVER))
        named = {e["event"]: e["events"] for e in json.loads(found["examples"])}
        assert named == {twice: -1, lost: 1}


def test_a_row_of_silver_that_bronze_does_not_have_is_too_many(lake: Lake) -> None:
    sent = [valid(0, [(1, A, 0)]), valid(1, [(2, A, 0)])]
    tell(lake, sent)
    land(lake, sent)
    stray = json.loads(event(2))["eventId"]
    delete(lake, BRONZE_EVENTS, f"event_id = '{stray}'")
    update_ledger(lake)
    (found,) = unbalanced(ledger_rows(lake, EVER))
    assert {e["event"]: e["events"] for e in json.loads(found["examples"])} == {stray: -1, None: 1}


# --- keeping it up to date ---


def test_hours_that_nobody_touched_are_left_alone(lake: Lake) -> None:
    first, second = valid(0, [(1, A, 0)]), valid(1, [(2, A, 40)])
    tell(lake, [first])
    land(lake, [first])
    update_ledger(lake)
    before = {r["hour"]: r["processed_at"] for r in ledger_rows(lake, EVER).to_pylist()}
    tell(lake, [second])
    land(lake, [second])
    done = update_ledger(lake)
    assert (done.hours, done.rows) == (1, 1)
    after = {r["hour"]: r["processed_at"] for r in ledger_rows(lake, EVER).to_pylist()}
    assert len(after) == 2
    assert before.items() <= after.items()
    assert update_ledger(lake).hours == 0


def test_hours_whose_acknowledgements_are_forgotten_stay_as_they_were(lake: Lake) -> None:
    old, new = valid(0, [(1, A, 0), (2, A, 0)]), valid(1, [(3, A, 40)])
    tell(lake, [old])
    land(lake, [], vanish=[old])
    update_ledger(lake)
    LakeTable(lake, ACKS).replace(CLOCK.date(), [], metadata={})
    land(lake, [new])
    update_ledger(lake, frozen_before=datetime.fromtimestamp((NOW + HOUR) / 1000, UTC))
    assert cells(lake) == {
        (A, H): {"received": 2, "missing": 2},
        (A, H + 40): {"received": 1, "landed": 1},
    }


def forget_log(lake: Lake) -> None:
    """What the clean-up leaves of the logs when there were many commits since."""
    for spec in (BRONZE_EVENTS, SILVER_EVENTS, ACKS):
        DeltaTable(lake.uri_of(spec)).create_checkpoint()
        expire_log(lake, spec, keep=0)


def test_hours_are_left_alone_whatever_the_logs_forgot(lake: Lake) -> None:
    first, second = valid(0, [(1, A, 0), (2, A, 40)]), valid(1, [(3, A, 80)])
    tell(lake, [first])
    land(lake, [first])
    update_ledger(lake)
    seen = LakeTable(lake, BRONZE_EVENTS).version
    tell(lake, [second])
    land(lake, [second])
    forget_log(lake)
    with pytest.raises(DeltaError):
        lake.open(BRONZE_EVENTS, seen)
    assert update_ledger(lake) == Updated(1, 1, LakeTable(lake, LEDGER).version)
    event_id = json.loads(event(2))["eventId"]
    delete(lake, SILVER_EVENTS, f"event_id = '{event_id}'")
    forget_log(lake)
    # The file that is gone had rows of three hours at most: those between its first and its last.
    assert update_ledger(lake).hours == 2
    assert cells(lake)[A, H + 40] == {"received": 1, "missing": 1}
    assert len(lake.listing(LEDGER, "_inputs")) == 1


@pytest.mark.parametrize("content", [None, b"", b'{"files": 7}'])
def test_an_update_that_does_not_know_what_the_one_before_saw_makes_all_anew(
    lake: Lake, content: bytes | None
) -> None:
    land(lake, [valid(0, [(1, A, 0)])])
    update_ledger(lake)
    (entry,) = lake.listing(LEDGER, "_inputs")
    path = Path(lake.uri_of(LEDGER)) / entry.path
    path.unlink() if content is None else path.write_bytes(content)
    land(lake, [valid(1, [(2, A, 0)])])
    assert update_ledger(lake).hours is None
    assert cells(lake) == {(A, H): {"received": 2, "landed": 2}}


def merge_all(lake: Lake, spec: Any) -> str:
    """What compaction does with a table's files, first and last; gives the merged one."""
    table = LakeTable(lake, spec)
    paths = table.snapshot().actions["path"].to_pylist()
    file = merge_files(lake, spec, paths, CLOCK.date(), ordered=False, cancelled=Cancellation())
    keep_origin(lake, spec, file.path, paths)
    assert table.rewrite(paths, file, metadata={})
    return file.path


def test_files_that_were_merged_are_no_news(lake: Lake) -> None:
    land(lake, [valid(0, [(1, A, 0), (2, A, 40)])])
    land(lake, [valid(1, [(3, A, 0), (4, A, 40)])])
    update_ledger(lake)
    for _ in range(2):
        for spec in (BRONZE_EVENTS, SILVER_EVENTS):
            merge_all(lake, spec)
        assert update_ledger(lake) == Updated(0, 0, LakeTable(lake, LEDGER).version)
    # One that was merged of known ones and a new one is one; and merged again.
    land(lake, [valid(2, [(5, A, 0)])])
    merge_all(lake, BRONZE_EVENTS)
    merge_all(lake, SILVER_EVENTS)
    assert update_ledger(lake).hours == 2
    assert cells(lake)[A, H] == {"received": 3, "landed": 3}
    # What is deleted from a merged file is missed.
    delete(lake, SILVER_EVENTS, f"event_id = '{json.loads(event(3))['eventId']}'")
    merge_all(lake, SILVER_EVENTS)
    update_ledger(lake)
    assert cells(lake)[A, H] == {"received": 3, "landed": 2, "missing": 1}


def test_what_compaction_does_is_no_news(lake: Lake) -> None:
    for n in range(3):
        land(lake, [valid(2 * n, [(n, A, 40 * n)]), rejected(2 * n + 1, [n])])
    update_ledger(lake)
    writer = committer(lake)
    assert compact_all(lake, writer) == 3
    writer.close()
    assert update_ledger(lake).hours == 0


def test_a_file_that_is_gone_is_missed_though_others_were_merged(lake: Lake) -> None:
    for n in range(3):
        land(lake, [valid(n, [(n, A, 40 * n)])])
    update_ledger(lake)
    merge_all(lake, SILVER_EVENTS)
    LakeTable(lake, SILVER_EVENTS).replace(CLOCK.date(), [], metadata={})
    assert update_ledger(lake).hours == 3
    assert totals(ledger_rows(lake, EVER))["missing"] == 3


def test_an_update_that_takes_long_is_done_seldom(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_due(lake, datetime.now(UTC))
    land(lake, [valid(0, [(1, A, 0)])])
    clock = chain((0.0,), repeat(90.0))
    monkeypatch.setattr("dc_platform.lake.ledger.time.monotonic", lambda: next(clock))
    update_ledger(lake)
    now = datetime.now(UTC)
    assert not is_due(lake, now + timedelta(minutes=29))
    assert is_due(lake, now + timedelta(minutes=31))


# --- anything ---


@dataclass
class World:
    """What was sent, and what became of it by the rules of the promise."""

    expected: dict[Cell, Counter[str]] = field(default_factory=dict)
    seen: set[tuple[str, int]] = field(default_factory=set)

    def add(self, cell: Cell, **figures: int) -> None:
        self.expected.setdefault(cell, Counter()).update(figures)


numbers = st.integers(0, 12)
gateway_events = st.lists(
    st.tuples(numbers, st.sampled_from((A, B)), st.integers(0, 2)), min_size=1, max_size=5
)
deliveries = st.lists(
    st.tuples(
        st.one_of(
            gateway_events.map(lambda events: ("valid", events)),
            st.lists(numbers, min_size=1, max_size=3, unique=True).map(lambda n: ("rejected", n)),
            numbers.map(lambda n: ("stranger", n)),
            st.just(("nonsense", None)),
        ),
        st.sampled_from(("land", "land", "land", "gap", "vanish")),
        st.booleans(),
    ),
    min_size=1,
    max_size=10,
)


@given(deliveries, st.integers(0, 3), st.data())
@settings(max_examples=int(os.environ.get("LEDGER_EXAMPLES", "8")))
def test_any_delivery_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory,
    delivered: list[tuple[tuple[str, Any], str, bool]],
    waiting: int,
    data: st.DataObject,
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake") / "lake"))
    world = World()
    all_sent: list[Sent] = []
    border = len(delivered) - waiting
    for offset, ((kind, what), fate, acked) in enumerate(delivered):
        # Of what leaves no trace only an acknowledgement can tell.
        acked = acked or fate != "land" or offset >= border
        if kind == "valid":
            sent = valid(offset, what, acked=acked)
        elif kind == "rejected":
            sent = rejected(offset, what, acked=acked)
        else:
            sent = stranger(offset, what) if kind == "stranger" else nonsense(offset)
        all_sent.append(sent)
        _expect(world, sent, kind, what, "wait" if offset >= border else fate)
    tell(lake, all_sent)
    for start, end in _cuts(data, border):
        _land_part(lake, all_sent[start:end], [d[1] for d in delivered[start:end]])
        update_ledger(lake)
    update_ledger(lake)
    expected = {c: {k: n for k, n in f.items() if n} for c, f in world.expected.items()}
    assert cells(lake) == {c: f for c, f in expected.items() if f}


def _cuts(data: st.DataObject, border: int) -> list[tuple[int, int]]:
    if border <= 0:
        return []
    cut = data.draw(st.integers(0, border))
    return [(a, b) for a, b in ((0, cut), (cut, border)) if b > a]


def _land_part(lake: Lake, sent: list[Sent], fates: list[str]) -> None:
    run = committer(lake)
    by_fate = {f: [s for s, g in zip(sent, fates, strict=True) if f == g] for f in set(fates)}
    gone = by_fate.get("gap", []) + by_fate.get("vanish", [])
    made = batch_of(by_fate.get("land", []), run.offsets, gone)
    gaps = [Gap(0, s.record.offset, s.record.offset + 1) for s in by_fate.get("gap", [])]
    run.land(Batch(made.judged, made.ranges, 0, gaps=gaps))
    run.close()


def _expect(world: World, sent: Sent, kind: str, what: Any, fate: str) -> None:
    if sent.ack is None and fate != "land":
        return
    for cell, events in sent.cells.items():
        world.add(cell, received=events)
    if fate != "land":
        name = {"gap": "gap", "vanish": "missing", "wait": "in_flight"}[fate]
        for cell, events in sent.cells.items():
            world.add(cell, **{name: events})
    elif kind in ("rejected", "nonsense"):
        for cell, events in sent.cells.items():
            world.add(cell, rejected=events)
    else:
        for number, source, hour in what if kind == "valid" else [(what, A, 0)]:
            known = (source, number) in world.seen
            world.seen.add((source, number))
            world.add((source, H + hour), **{"duplicates" if known else "landed": 1})


def test_the_files_of_bronze_are_only_read_for_the_hours_asked(lake: Lake, tmp_path: Path) -> None:
    first, second = valid(0, [(1, A, 0)]), valid(1, [(2, A, 40)])
    land(lake, [first])
    update_ledger(lake)
    (path,) = LakeTable(lake, BRONZE_EVENTS).snapshot().paths
    Path(path).rename(tmp_path / "away")
    land(lake, [second])
    assert update_ledger(lake).hours == 1
