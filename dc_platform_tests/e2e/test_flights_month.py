"""Flights through a real gateway, 5 % twice, 3 % late by up to three days, 2 % spoiled, in random
order: silver, quarantine and gold are what Polars makes of the source file, and sketches within their
documented error.

Gold is built after each sixth of them, so that late flights open hours again that were done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import polars as pl
import pytest

from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.settings import Settings
from dc_platform_tests.e2e.parts import http_part, kafka, land
from dc_platform_tests.helpers import flights

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

_BODY_LINES = 500


class Scene(NamedTuple):
    """A gateway, serving, and the lake behind them."""

    environment: dict[str, str]
    gateway: str
    serving: str
    key: str
    token: str
    source_id: str

    @property
    def lake(self) -> Lake:
        return Lake(self.environment["DCP_LAKE_URI"])

    def send(self, lines: list[bytes]) -> tuple[int, int]:
        """(accepted, rejected) of NDJSON bodies, four at a time."""
        bodies = [b"\n".join(lines[i : i + _BODY_LINES]) for i in range(0, len(lines), _BODY_LINES)]
        with ThreadPoolExecutor(4) as pool, httpx.Client(timeout=60) as client:
            answers = list(pool.map(lambda body: self._post(client, body), bodies))
        return sum(a["accepted"] for a in answers), sum(a["rejected"] for a in answers)

    def _post(self, client: httpx.Client, body: bytes) -> dict[str, Any]:
        headers = {"X-API-Key": self.key, "Content-Type": "application/x-ndjson"}
        answer = client.post(f"{self.gateway}/api/v1/events", content=body, headers=headers)
        assert answer.status_code in (200, 422), answer.text
        found: dict[str, Any] = answer.json()
        return found

    def dcp(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "dc_platform.cli.main", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sql(self, text: str) -> list[dict[str, Any]]:
        answer = httpx.post(
            f"{self.serving}/api/v1/sql",
            json={"sql": text},
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def table(self, spec: TableSpec, *columns: str) -> pl.DataFrame:
        paths = LakeTable(self.lake, spec).snapshot().paths
        return pl.read_parquet(paths, columns=list(columns), hive_partitioning=False)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with kafka(tmp_path / "kafka") as broker:
        data = tmp_path / "data"
        environment = {
            "DCP_DATA_DIR": str(data),
            "DCP_LAKE_URI": str(data / "lake"),
            "DCP_KAFKA_BOOTSTRAP": broker.bootstrap,
            "DCP_TOPIC": "flights",
        }
        registry = Settings(data_dir=data).registry
        migrate(registry)
        database = Database(registry)
        source, key = Sources(database).create("flights", SourceType.APPLICATION)
        token = Tokens(database).create(Scope.QUERY)
        with (
            http_part("dc_platform.gateway", environment, log=tmp_path / "gateway.log") as gateway,
            http_part("dc_platform.serving", environment, log=tmp_path / "serving.log") as serving,
        ):
            yield Scene(environment, gateway, serving, key, token, source.source_id)


@pytest.mark.timeout(600)
def test_three_days_of_flights(scene: Scene) -> None:
    check(scene, flights.sending(flights.three_days(), seed=1))


@pytest.mark.lakehouse
@pytest.mark.timeout(1800)
def test_a_month_of_flights(scene: Scene, tmp_path: Path) -> None:
    check(scene, flights.sending(flights.january(tmp_path), seed=2))


def check(scene: Scene, sending: flights.Sending) -> None:
    """Send, land and build slice by slice; then compare everything."""
    rebuilt = []
    for lines in sending.slices:
        accepted, rejected = scene.send(lines)
        assert accepted + rejected == len(lines)
        land(scene.environment)
        rebuilt.append(json.loads(scene.dcp("gold", "build", "--json"))["hours"])
    hours = len(flights.expected_hours(sending.accepted).select("hour").unique())
    assert sum(rebuilt) > hours, "late flights opened no hour again"
    assert_silver(scene, sending)
    assert_quarantine(scene, sending)
    assert_gold(scene, sending)
    assert_sketches(scene, sending)


def assert_silver(scene: Scene, sending: flights.Sending) -> None:
    """Each accepted flight once, byte for byte."""
    columns = ("client_event_id", "event_time", "event_type", "payload", "source_id")
    found = scene.table(SILVER_EVENTS, *columns).sort("client_event_id")
    wanted = sending.accepted.select(
        client_event_id=pl.format("flight-{}", "number"),
        event_time="departed",
        event_type="event_type",
        payload=pl.Series(
            [
                json.dumps(flights.payload(row), separators=(",", ":"))
                for row in sending.accepted.iter_rows(named=True)
            ],
            dtype=pl.String,
        ),
        source_id=pl.lit(scene.source_id),
    ).sort("client_event_id")
    assert found.equals(wanted)


def assert_quarantine(scene: Scene, sending: flights.Sending) -> None:
    """Each spoiled flight with its reason."""
    found = scene.table(SILVER_QUARANTINE, "reason").group_by("reason").len()
    assert dict(found.iter_rows()) == sending.rejected


def assert_gold(scene: Scene, sending: flights.Sending) -> None:
    """gold.events_hourly to the last digit."""
    wanted = flights.expected_hours(sending.accepted)
    rows = scene.sql(
        f"select {', '.join(wanted.columns)}, source_id, tenant_id from gold.events_hourly"
        " order by hour, event_type"
    )
    assert {(r.pop("source_id"), r.pop("tenant_id")) for r in rows} == {
        (scene.source_id, "default")
    }
    for row, expected in zip(rows, wanted.iter_rows(named=True), strict=True):
        expected["hour"] = expected["hour"].astimezone(UTC).isoformat(timespec="milliseconds")
        assert row == expected


def assert_sketches(scene: Scene, sending: flights.Sending) -> None:
    """Merged over all hours: users within 2 %, types exact, ranks within 1/512 (docs/sketches.md)."""
    [found] = scene.sql(
        "select hll_estimate(list(users_hll)) as users, top_k(list(event_types_top), 2) as types,"
        " quantile_estimate(list(value_quantiles), 0.5) as p50,"
        " quantile_estimate(list(value_quantiles), 0.99) as p99 from gold.sketches_hourly"
    )
    accepted = sending.accepted
    users = accepted.select(pl.concat_str("origin", "destination", separator="-")).n_unique()
    assert abs(found["users"] - users) <= 0.02 * users
    types = accepted.group_by("event_type").len().sort("len", descending=True)
    assert [(t["item"], t["estimate"]) for t in found["types"]] == list(types.iter_rows())
    delays = accepted["delay"]
    for name, rank in (("p50", 0.5), ("p99", 0.99)):
        below = (delays < found[name]).mean()
        upto = (delays <= found[name]).mean()
        assert below - 1 / 512 <= rank <= upto + 1 / 512
