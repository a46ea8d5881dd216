"""Sampling in columns is what anybody computes from the id and the rate, whatever is beside it."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from random import Random

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.broker.records import Record
from dc_platform.contracts import blocks
from dc_platform.contracts.sampling import Rates, is_kept, number_of, rate_of, read_rates
from dc_platform_tests.helpers.events import events, some_uuid
from dc_platform_tests.helpers.landing import decoder
from dc_platform_tests.helpers.records import SOURCE, block, gateway_line, rows

OTHER = "1c9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a02"


def sampled_block(lines: list[bytes], rates: Rates, offset: int = 0, **more: int) -> Record:
    """A gateway's block whose header names rates."""
    made = block(lines, offset, **more)
    headers = {**made.headers, blocks.SAMPLING: json.dumps(rates).encode()}
    return made._replace(headers=headers)


def line(number: int, event_type: str = "t", source_id: str = SOURCE) -> bytes:
    event = {"eventId": some_uuid(number), "eventType": event_type, "payload": {"n": number}}
    return gateway_line(json.dumps(event).encode(), source_id=source_id)


def test_the_decision_is_the_documented_one() -> None:
    for event_id in ("a", some_uuid(1), "ü"):
        expected = int(hashlib.md5(event_id.encode()).hexdigest()[:8], 16)
        [(found,)] = duckdb.execute("select ('0x' || md5(?)[1:8])::ubigint", [event_id]).fetchall()
        assert number_of(event_id) == found == expected
    assert all(is_kept(some_uuid(n), 1.0) for n in range(1000))


@given(st.text(max_size=20), st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_what_a_rate_keeps_each_higher_one_keeps(event_id: str, one: float, two: float) -> None:
    low, high = sorted((one, two))
    assert is_kept(event_id, high) or not is_kept(event_id, low)


def test_each_event_has_the_rate_of_its_source_and_type() -> None:
    rates = {SOURCE: {"": 0.5, "rare": 1.0, "often": 0.01}, "gone": {"": 0.1}}
    kinds = ("t", "rare", "often")
    mine = [line(n, kinds[n % 3]) for n in range(600)]
    theirs = [line(n, "often", OTHER) for n in range(600, 700)]
    found = rows(decoder().decode([sampled_block(mine + theirs, rates)]))
    assert len(found) == 700
    for row in found:
        rate = rate_of(rates, row["source_id"], row["event_type"])
        kept = is_kept(row["event_id"], rate)
        assert (row["verdict"], row["sample_rate"]) == ("valid" if kept else "sampled", rate)
    assert {r["verdict"] for r in found if r["event_type"] == "rare"} == {"valid"}
    assert [r["kafka_index"] for r in found] == list(range(700))


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b'{"a":1}', b'{"a":{"":2}}', b'{"a":{"":0}}', b"\xff", b"{}"]
)
def test_a_header_that_is_none_samples_nothing(header: bytes) -> None:
    assert read_rates(header) == {}
    made = block([line(n) for n in range(50)])
    odd = made._replace(headers={**made.headers, blocks.SAMPLING: header})
    assert decoder().decode([odd]).equals(decoder().decode([made]).cast(_schema([odd])))


def _schema(records: list[Record]) -> object:
    return decoder().decode(records).schema


@given(st.lists(events(), min_size=1, max_size=12), st.integers(0, 5), st.randoms())
def test_the_verdict_is_the_records_own_whatever_is_beside_it(
    raws: list[bytes], cut: int, chance: Random
) -> None:
    lines = [gateway_line(raw) for raw in raws]
    rates: Mapping[str, dict[str, float]] = {SOURCE: {"": 0.5}}
    records = [
        sampled_block(lines[:cut] or lines, rates, 0),
        block(lines, 1),
        sampled_block([b"{odd", *lines], rates, 2),
        sampled_block(lines, {OTHER: {"": 0.1}}, 0, partition=1),
    ]
    alone = [row for record in records for row in rows(decoder().decode([record]))]
    chance.shuffle(records)
    together = rows(decoder().decode(records))
    assert together == alone
    assert {r["verdict"] for r in together if r["kafka_offset"] == 1} == {"valid"}


def test_a_tenth_of_a_skewed_stream_gives_its_counts_within_the_binomial_error() -> None:
    """200,000 events, kinds by Zipf's law: each kind's weighted count is within five deviations."""
    chance = Random(7)
    weights = [1 / n for n in range(1, 21)]
    kinds = chance.choices([f"k{n}" for n in range(20)], weights, k=200_000)
    ids = [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in kinds]
    exact: dict[str, int] = {}
    estimate: dict[str, float] = {}
    for event_id, kind in zip(ids, kinds, strict=True):
        exact[kind] = exact.get(kind, 0) + 1
        estimate[kind] = estimate.get(kind, 0) + (10.0 if is_kept(event_id, 0.1) else 0.0)
    for kind, count in exact.items():
        deviation = (count * 0.9 / 0.1) ** 0.5
        assert abs(estimate[kind] - count) < 5 * deviation, (kind, count, estimate[kind])
    total = sum(estimate.values())
    print(
        f"all: {100 * (total / len(ids) - 1):+.2f} %, k0: {estimate['k0'] / exact['k0'] - 1:+.4f}"
    )
    assert abs(total / len(ids) - 1) < 0.02
