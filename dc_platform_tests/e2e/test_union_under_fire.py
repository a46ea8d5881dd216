"""While events flow, a tenth of them twice, and landing is killed and started again at random, a client
that counts by source every 100 ms never sees a count fall, double or miss one in the middle; nor does
Trino. Small in `make test`, 20,000 events a second on a whole stack in `make test-union`.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.stack.trino_client import TrinoClient
from dc_platform_tests.e2e.fire import Look, Order, Sent, Watch, lags, sending, wrong
from dc_platform_tests.e2e.parts import land
from dc_platform_tests.e2e.platform import running, wait_for
from dc_platform_tests.e2e.union import UnionScene

pytestmark = [pytest.mark.trino, pytest.mark.slow]

_MOST_LAG_MS = 500.0
_COUNT = "SELECT source_id, count(*) AS n FROM {table} WHERE event_type = 'fire' GROUP BY 1"
_IN_TRINO = (
    "SELECT source_id, count(*), max(to_milliseconds(event_time - from_unixtime(0)))"
    " FROM lake.default.events WHERE event_type = 'fire' GROUP BY 1"
)


class Fire:
    """A load, who counts it, and what kills its landing."""

    def __init__(
        self, order: Order, trino: TrinoClient, kill: Callable[[random.Random], None]
    ) -> None:
        self.order = order
        self.watch = Watch(order)
        self.in_trino: list[Look] = []
        self.sent: list[Sent] = []
        self.killed = 0
        self._trino = trino
        self._kill = kill
        self._chosen = random.Random(order.seed)
        self._ended = threading.Event()
        self._error: Exception | None = None

    @contextmanager
    def burning(self) -> Iterator[None]:
        """Send, count and kill for the length of the block."""
        killer = threading.Thread(target=self._kill_again, daemon=True)
        with self.watch.watching(), sending(self.order) as sent:
            killer.start()
            try:
                yield
            finally:
                self._ended.set()
                killer.join(180)
        self.sent = sent
        assert self._error is None, self._error

    def _kill_again(self) -> None:
        try:
            while not self._ended.is_set():
                self._kill(self._chosen)
                self.killed += 1
        except Exception as error:
            self._error = error

    def ask_trino(self) -> None:
        """One more count of the view."""
        asked = time.monotonic()
        rows = self._trino.query(_IN_TRINO)
        counts = {source: n for source, n, _ in rows}
        latest = {source: ms - self.order.base_ms for source, _, ms in rows}
        self.in_trino.append(Look(asked, time.monotonic(), counts, latest, complete=True))

    def holds(self) -> None:
        """No count fell, doubled, or had a hole."""
        assert wrong(self.watch.looks, self.sent) == []
        assert wrong(self.in_trino, self.sent) == []
        assert self.watch.refused == []

    def agree(self, rows: Callable[[str], list[dict[str, Any]]]) -> None:
        """All has landed: silver, the union and Trino's view have what was acknowledged, once."""
        wanted = {of.source: of.events for of in self.sent}
        for table in ("silver.events", "events"):
            found = rows(_COUNT.format(table=table))
            assert {row["source_id"]: row["n"] for row in found} == wanted, table
        self.ask_trino()
        assert self.in_trino[-1].counts == wanted

    def figures(self, looks: Sequence[Look]) -> dict[str, Any]:
        """What was done, and the lags of these answers."""
        events = sum(of.events for of in self.sent)
        before, after = (sum(of.again[i] for of in self.sent) for i in (0, 1))
        seconds = self.sent[0].acknowledged[-1] - self.sent[0].begun[0]
        return {
            "events": events,
            "seconds": round(seconds, 1),
            "sent_per_second": round((events + before + after) / seconds),
            "again_before_landing": before,
            "again_after_landing": after,
            "landing_killed": self.killed,
            "answers": len(self.watch.looks),
            "answers_not_complete": sum(not look.complete for look in self.watch.looks),
            "answers_of_trino": len(self.in_trino),
            **lags(looks, self.sent),
        }


def test_counts_neither_fall_nor_double_while_landing_is_killed(union_scene: UnionScene) -> None:
    scene = union_scene
    order = Order(
        scene.gateway,
        scene.serving,
        scene.token,
        [scene.source(f"fire-{n}") for n in range(4)],
        rate=2_000,
        batch=100,
        seed=1,
        base_ms=base_ms(),
    )

    def kill(chosen: random.Random) -> None:
        command = [sys.executable, "-m", "dc_platform.cli.main", "land"]
        before = version()
        with subprocess.Popen(command, env={**os.environ, **scene.environment}) as lander:
            try:
                wait_for(lambda: version() > before, 120, "a commit")
                time.sleep(chosen.uniform(0, 2))
            finally:
                lander.kill()

    def version() -> int:
        return LakeTable(Lake(scene.settings.lake), SILVER_EVENTS).version

    fire = Fire(order, scene.trino, kill)
    with fire.burning():
        while fire.killed < 3:
            fire.ask_trino()
    land(scene.environment)
    fire.holds()
    fire.agree(scene.rows)
    figures = fire.figures(fire.watch.looks)
    print(json.dumps(figures))
    assert figures["again_before_landing"] > 0
    assert figures["again_after_landing"] > 0


@pytest.mark.fire
@pytest.mark.timeout(3600)
def test_counts_neither_fall_nor_double_nor_lag_at_20_000_events_a_second(tmp_path: Path) -> None:
    seconds = float(os.environ.get("FIRE_SECONDS", "180"))
    rate = int(os.environ.get("FIRE_RATE", "20000"))
    with running(tmp_path / "stack", "--with", "trino") as platform:
        token, info = platform.token("query"), platform.info
        sources = [platform.source(f"fire-{n}") for n in range(8)]
        order = Order(
            info["gateway"],
            info["query"],
            token,
            sources,
            rate,
            batch=500,
            seed=1,
            base_ms=base_ms(),
        )

        def kill(chosen: random.Random) -> None:
            time.sleep(chosen.uniform(1, 15))
            dead = platform.kill("landing")
            wait_for(
                lambda: platform.pid("landing") not in (None, dead), 180, "another landing run"
            )

        fire = Fire(order, TrinoClient(info["trino"]), kill)
        with fire.burning():
            # Who asks Trino for millions of events takes both cores; lags are those without.
            time.sleep(seconds)
            alone = len(fire.watch.looks)
            for _ in range(5):
                fire.ask_trino()
                time.sleep(seconds / 30)
        events = sum(of.events for of in fire.sent)
        count = "select count(*) as n from silver.events where event_type = 'fire'"
        wait_for(lambda: platform.rows(count, token)[0]["n"] >= events, 600, "all to land")
        # The first seconds are those of processes that start.
        figures = fire.figures(fire.watch.looks[20:alone])
        print(json.dumps(figures))
        fire.holds()
        fire.agree(lambda sql: platform.rows(sql, token))
    assert figures["sent_per_second"] > 0.9 * rate
    assert figures["lag_max_ms"] <= _MOST_LAG_MS


def base_ms() -> int:
    """Far enough back that no number is in the future."""
    return int(time.time() * 1000) - 86_400_000
