"""The flood's figures from its two logs, and its load: each against what it must be by hand."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pytest

from dc_platform.bench.flood_figures import Commit, Flow, Window, grows, landed_at
from dc_platform.bench.flood_load import ACKS, Pacer
from dc_platform.bench.probes import percentiles
from dc_platform.bench.stencil import Stencil, stencils, uuids
from dc_platform.bench.workload import as_line, generate
from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.blocks import BlockId, block_headers
from dc_platform.decode.columns import AnySource
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Policy

NOW_MS = 1_700_000_000_123


def acks(*rows: tuple[int, int, float]) -> pa.Table:
    """(partition, offset, appended at) of blocks of 1,000 events."""
    return pa.Table.from_pylist(
        [
            {
                "partition": partition,
                "offset": offset,
                "appended_at": at,
                "acknowledged_at": at + 0.01,
                "events": 1_000,
            }
            for partition, offset, at in rows
        ],
        schema=ACKS,
    )


def test_a_record_landed_with_the_first_commit_that_reaches_past_it() -> None:
    commits = [Commit(10.0, {0: 2}), Commit(11.0, {1: 1}), Commit(12.0, {0: 3, 1: 1})]
    partitions = np.array([0, 0, 0, 0, 1, 2])
    offsets = np.array([0, 1, 2, 3, 0, 0])
    found = landed_at(partitions, offsets, commits)
    assert found.tolist() == [10.0, 10.0, 12.0, np.inf, 11.0, np.inf]


def test_delays_are_those_of_the_records_of_the_window() -> None:
    flow = Flow(acks((0, 0, 1.0), (0, 1, 2.0), (0, 2, 3.0)), [Commit(3.5, {0: 3})])
    assert flow.delays_ms(Window(1.5, 3.0)).tolist() == [1500.0]


def test_the_lag_rises_with_an_append_and_falls_with_a_commit() -> None:
    flow = Flow(acks((0, 0, 1.0), (0, 1, 1.5), (1, 0, 2.0)), [Commit(2.25, {0: 2})])
    times, lag = flow.lag(Window(0.75, 2.75))
    assert dict(zip(times.tolist(), lag.tolist(), strict=True)) == {
        0.75: 0, 1.0: 1000, 1.25: 1000, 1.5: 2000, 1.75: 2000, 2.0: 3000, 2.25: 1000, 2.5: 1000,
    }  # fmt: skip
    assert flow.lag(Window(2.0, 2.25), records=True)[1].tolist() == [3.0]
    assert flow.recovered_at(2.0, 3.0, 1000) == 2.25
    assert flow.recovered_at(2.0, 3.0, 999) is None


def flow_of(landing_share: float) -> Flow:
    """100 seconds of 10 blocks a second, of which landing keeps up with a share."""
    rows = [(0, i, 1_000 + i / 10) for i in range(1_000)]
    commits = [
        Commit(1_000.0 + second, {0: int(10 * second * landing_share)}) for second in range(1, 200)
    ]
    return Flow(acks(*rows), commits)


def test_a_lag_that_does_not_grow_has_no_slope() -> None:
    window = Window(1_010.0, 1_090.0)
    assert abs(flow_of(1.0).lag_slope(window)) < 10
    assert not grows(flow_of(1.0).lag_slope(window), window, rate=10_000)
    assert flow_of(1.0).landed_per_second(window) == flow_of(1.0).offered_per_second(window)


def test_a_landing_that_is_a_tenth_too_slow_shows_in_the_slope() -> None:
    window = Window(1_010.0, 1_090.0)
    assert flow_of(0.9).lag_slope(window) == pytest.approx(1_000, rel=0.05)
    assert flow_of(0.9).lag_slope(window, records=True) == pytest.approx(1, rel=0.05)
    assert grows(flow_of(0.9).lag_slope(window), window, rate=10_000)


def test_percentiles_have_their_unit_in_the_name() -> None:
    assert percentiles("x", [float(i) for i in range(200)]) == {
        "x_p50_ms": 100.0, "x_p99_ms": 198.0, "x_max_ms": 199.0,
    }  # fmt: skip
    assert percentiles("x", []) == {}


def test_a_filled_block_is_what_the_gateway_would_write() -> None:
    block = next(generate(50, now_ms=NOW_MS))
    value = Stencil(block).fill(7, NOW_MS, salt=3)
    lines = value.split(b"\n")
    for number, (event, line) in enumerate(zip(block, lines, strict=True)):
        event_id = bytes(uuids(7 + number, 1, salt=3)[0]).decode()
        assert line == as_line(
            type(event)(event.source_id, event_id, NOW_MS, event.event_type, event.payload), NOW_MS
        )


def test_landing_accepts_every_line_of_the_load() -> None:
    stencil = stencils(1, now_ms=NOW_MS)[0]
    headers = block_headers(
        BlockId("bench", "1", 0),
        content_type=blocks.NDJSON,
        verdict=blocks.VALID,
        tenant=blocks.DEFAULT_TENANT,
        counts={stencil.source_id: stencil.events},
    )
    value = stencil.fill(0, NOW_MS, salt=1)
    record = Record(0, 0, NOW_MS, dict(headers), value)
    judged = Decoder("topic", AnySource(), Policy(3_600_000, 2**20)).decode([record])
    assert judged["verdict"].to_pylist() == [blocks.VALID] * 1_000
    assert len(set(judged["event_id"].to_pylist())) == 1_000


def test_ids_repeat_only_for_the_same_run_and_number() -> None:
    def texts(first: int, salt: int) -> list[str]:
        return [bytes(row).decode() for row in uuids(first, 500, salt=salt)]

    assert texts(0, 1)[100:] == texts(100, 1)[:400]
    assert not set(texts(0, 1)) & (set(texts(500, 1)) | set(texts(0, 2)) | set(texts(0, 9)))
    assert all(str(uuid.UUID(text)) == text for text in texts(0, 1))
    assert {uuid.UUID(text).version for text in texts(0, 1)} == {4}


def sent(pacer: Pacer, rate: int, start: float, end: float) -> int:
    """Blocks of 1,000 events that are sent between two moments; looked at every millisecond."""
    count = 0
    for now in np.arange(start, end, 0.001):
        while pacer.pause(float(now), rate) == 0.0:
            pacer.sent()
            count += 1
    return count


def test_a_new_rate_holds_at_once() -> None:
    pacer = Pacer(1_000)
    assert sent(pacer, 1_000, 0, 10) == 10
    assert sent(pacer, 50_000, 10, 12) == 100
    assert sent(pacer, 0, 12, 13) == 0
    assert sent(pacer, 2_000, 13, 15) == 4


def test_a_pause_of_the_machine_is_made_up_for_by_a_second_at_most() -> None:
    pacer = Pacer(1_000)
    sent(pacer, 10_000, 0, 1)
    assert sent(pacer, 10_000, 61, 61.001) <= 11
