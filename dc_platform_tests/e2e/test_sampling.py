"""Sampling on real parts: the ledger tells what was left out, weights give the counts back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.sampling import is_kept
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.table import LakeTable
from dc_platform.landing.backfill import backfill_silver
from dc_platform.registry.sampling import SamplingRule
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.e2e.platform import wait_for
from dc_platform_tests.e2e.scene import Scene, opened
from dc_platform_tests.helpers.lake import read_table

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

EVENTS = 6_000


@pytest.fixture
def scene(kafka: LocalKafka, tmp_path: Path) -> Iterator[Scene]:
    with opened(kafka, tmp_path) as made:
        yield made


def events(count: int) -> list[dict[str, Any]]:
    kinds = ("common", "common", "common", "rare")
    return [
        {"eventId": str(uuid.uuid4()), "eventType": kinds[n % 4], "payload": {"n": n}}
        for n in range(count)
    ]


def rates(scene: Scene) -> set[float]:
    return {row[0] for row in read_table(scene.lake, SILVER_EVENTS, "sample_rate")}


def test_what_is_left_out_is_in_bronze_and_in_the_ledger_and_not_in_silver(scene: Scene) -> None:
    scene.sources.change(
        scene.source_id, sampling=SamplingRule(rate=0.1, event_types={"rare": 1.0})
    )

    def in_force() -> bool:
        scene.post(events(1))
        scene.land()
        return 0.1 in {r[0] for r in read_table(scene.lake, BRONZE_EVENTS, "sample_rate")}

    wait_for(in_force, 180, "the rate to be in force")
    before = scene.assert_balanced()
    sent = events(EVENTS)
    for first in range(0, EVENTS, 1000):
        assert scene.post(sent[first : first + 1000])["accepted"] == 1000
    # A retry gets the same decision.
    scene.post(sent[:1000])
    scene.post([{"eventType": 7, "payload": {}}])
    scene.land()
    kept = {e["eventId"] for e in sent if e["eventType"] == "rare" or is_kept(e["eventId"], 0.1)}
    landed = scene.ids()
    assert {e["eventId"] for e in sent if e["eventId"] in landed} == kept
    assert set(landed.values()) == {1}
    totals = scene.assert_balanced()
    more = {name: totals[name] - before[name] for name in totals}
    left_out = sum(e["eventId"] not in kept for e in [*sent, *sent[:1000]])
    assert (more["received"], more["landed"]) == (EVENTS + 1001, len(kept))
    assert (more["sampled_out"], more["rejected"]) == (left_out, 1)
    assert more["duplicates"] == sum(e["eventId"] in kept for e in sent[:1000])
    assert len(read_table(scene.lake, SILVER_QUARANTINE)) == 1
    weighted = sum(
        1 / rate
        for rate, kind in read_table(scene.lake, SILVER_EVENTS, "sample_rate, event_type")
        if kind == "common"
    )
    exact = 3 * EVENTS / 4
    print(f"weighted count of common events: {100 * (weighted / exact - 1):+.2f} %")
    assert abs(weighted - exact) < 5 * (exact * 9) ** 0.5 + 20
    backfill_keeps(scene)


def backfill_keeps(scene: Scene) -> None:
    """Silver that is built anew from bronze has the same events with the same rates."""
    columns = "event_id, sample_rate, payload, dedup_scope"
    before = read_table(scene.lake, SILVER_EVENTS, columns)
    silver = LakeTable(scene.lake, SILVER_EVENTS)
    for day in silver.snapshot().rows_by_partition():
        assert backfill_silver(scene.lake, date.fromisoformat(day)).version is None
        silver.refresh()
        silver.replace(date.fromisoformat(day), [], metadata={})
        backfill_silver(scene.lake, date.fromisoformat(day))
    assert sorted(read_table(scene.lake, SILVER_EVENTS, columns)) == sorted(before)


def test_a_source_that_sends_too_much_is_thinned_out(scene: Scene) -> None:
    scene.sources.change(scene.source_id, sampling=SamplingRule(target=50))

    def thinned() -> bool:
        for _ in range(3):
            scene.post(events(500))
        scene.land()
        return min(rates(scene)) <= 0.25

    wait_for(thinned, 180, "a lower rate")
    assert all((1 / rate).is_integer() for rate in rates(scene))
    scene.assert_balanced()
