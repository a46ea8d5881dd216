"""Quarantined events repaired and replayed, on real parts: each lands once, and the ledger balances.

`make test-lakehouse` does it with 10,000 events.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.ops_tables import REPLAYS
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.lake.store import Lake
from dc_platform.points import Point
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.e2e.scene import Scene, opened
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import CrashError, crash_at

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

REPAIR = {"eventType": "order", "payload": {"wrong": None}}
PER_REQUEST = 500


@pytest.fixture
def scene(kafka: LocalKafka, tmp_path: Path) -> Iterator[Scene]:
    with opened(kafka, tmp_path) as made:
        yield made


def wrong(number: int, **more: Any) -> dict[str, Any]:
    """An event whose type is a number, as a release of a client sent it."""
    return {"eventType": 7, "eventId": f"e{number}", "payload": {"n": number, "wrong": 1}, **more}


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.lakehouse)])
def test_repaired_and_replayed_twice_they_land_once_and_the_ledger_balances(
    scene: Scene, count: int
) -> None:
    for first in range(0, count, PER_REQUEST):
        numbers = range(first, min(first + PER_REQUEST, count))
        assert scene.post([wrong(n) for n in numbers])["rejected"] == len(numbers)
    scene.post([{"eventType": "order", "eventId": "good", "payload": {}}])
    scene.land()
    assert scene.ids() == {"good": 1}

    asked = scene.replay(patch=REPAIR, dry_run=True)
    assert (asked.rows, asked.replayed, asked.known, asked.rejected) == (count, count, 0, 0)
    assert not read_table(scene.lake, REPLAYS)
    # Without the repair they are still what they were.
    as_it_is = scene.replay(dry_run=True)
    assert as_it_is.still == {"wrong_type": count}

    # Killed when Kafka has them and nobody knows; the next one sends them again.
    with pytest.raises(CrashError):
        scene.replay(patch=REPAIR, reached=crash_at(Point.REPLAY_ACKED))
    done = scene.replay(patch=REPAIR)
    assert (done.rows, done.replayed, done.rejected) == (count, count, 0)
    scene.land()
    # And a second time, with nothing left to do.
    again = scene.replay(patch=REPAIR)
    assert (again.rows, again.replayed, again.known, again.rejected) == (0, 0, 0, 0)
    scene.land()

    assert scene.ids() == {"good": 1, **{f"e{n}": 1 for n in range(count)}}
    assert len(read_table(scene.lake, SILVER_QUARANTINE)) == count
    rows = read_table(scene.lake, SILVER_EVENTS, "client_event_id, event_type, payload")
    assert ("e17", "order", '{"n":17}') in rows
    totals = scene.assert_balanced()
    resent = totals["duplicates"]
    assert resent > 0
    assert totals["rejected"] == count
    assert totals["landed"] == count + 1
    assert totals["missing"] == 0
    assert totals["received"] == 2 * count + 1 + resent
    assert len(read_table(scene.lake, BRONZE_EVENTS)) == totals["received"]
    received = [_first(scene.lake, t) for t in (SILVER_EVENTS, BRONZE_EVENTS)]
    assert received[0] == received[1]


def _first(lake: Lake, spec: TableSpec) -> Any:
    return min(row[0] for row in read_table(lake, spec, "received_at"))
