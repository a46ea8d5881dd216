"""One dbt project, two engines: on a real Trino gold has the rows that DuckDB made, bit by bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dc_platform.contracts.gold import GOLD_TABLES
from dc_platform.gold.run import keep_gold
from dc_platform.gold.trino import build_on_trino
from dc_platform.lake.store import Lake
from dc_platform.stack import ports
from dc_platform.stack.trino import LocalTrino
from dc_platform_tests.gold.lakes import delete, land, new_lake, reject, rows
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.gold import columns, expected, gold
from dc_platform_tests.helpers.lake import silver_row

pytestmark = [pytest.mark.trino, pytest.mark.slow, pytest.mark.timeout(600)]

SCHEMA = "gold_trino"


class Scene(NamedTuple):
    """A lake, and a Trino over it."""

    lake: Lake
    trino: LocalTrino
    cache: Path

    def build(self, span: tuple[int, int] | None = None) -> None:
        """Both engines."""
        keep_gold(self.lake, self.cache)
        assert self.trino.answers()
        outcomes = build_on_trino(self.lake, self.cache, self.trino.url, SCHEMA, span)
        assert all(outcome.good for outcome in outcomes)
        assert sum(outcome.kind == "test" for outcome in outcomes) >= 12

    def differences(self) -> dict[str, list[list[object]]]:
        """Rows that only one of them has."""
        found = {}
        for spec in GOLD_TABLES:
            table = spec.name.split(".")[1]
            names = ", ".join(columns(spec))
            ours, theirs = (f"SELECT {names} FROM lake.{s}.{table}" for s in (spec.layer, SCHEMA))
            only = [f"({a} EXCEPT ALL {b})" for a, b in ((ours, theirs), (theirs, ours))]
            found[table] = [row for sql in only for row in self.trino.query(sql)]
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    lake = new_lake(tmp_path)
    port = ports.choose(needed=("trino",), remembered={}, auto=True)["trino"]
    trino = LocalTrino(
        tmp_path / "trino",
        port,
        lake=lake.uri,
        # The topic is not asked for.
        bootstrap="127.0.0.1:9",
        topic="events-raw",
        memory_mb=2048,
    )
    with trino:
        yield Scene(lake, trino, tmp_path / "cache")


def test_both_engines_make_the_same_rows(scene: Scene) -> None:
    chosen = random.Random(7)
    land(scene.lake, rows(chosen, 0, 1500, wild=True))
    land(scene.lake, [silver_row(n, event_type=f"type {n}") for n in range(5000, 5130)])
    reject(scene.lake, [NOW, NOW + 1, NOW + 100 * HOUR])
    reject(scene.lake, [NOW], source=None)
    scene.build()
    assert gold(scene.lake) == expected(scene.lake)
    assert scene.differences() == {"events_hourly": [], "sources_daily": [], "event_types_top": []}
    # Late events, deletions, an hour and a day of which nothing is left: merged, and what is gone goes.
    land(scene.lake, rows(chosen, 9000, 40))
    last = NOW // HOUR + 29
    delete(
        scene.lake,
        lambda row: (
            int(row["kafka_offset"]) % 5 == 0
            or row["event_time"].timestamp() * 1000 >= NOW + 15 * HOUR
        ),
    )
    reject(scene.lake, [NOW - HOUR])
    scene.build((NOW // HOUR - 31, last + 3))
    assert gold(scene.lake) == expected(scene.lake)
    assert scene.differences() == {"events_hourly": [], "sources_daily": [], "event_types_top": []}
