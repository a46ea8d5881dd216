"""Monitoring's figures are those of plain counting, of one tenant, at a bounded cost."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from dc_platform.contracts import blocks
from dc_platform.contracts.tables import SILVER_EVENTS, TABLES
from dc_platform.registry.sources import SourceType
from dc_platform.retention.conditions import of_person
from dc_platform.retention.erase import Eraser, Stubs
from dc_platform.serving import monitor, rollup
from dc_platform_tests.helpers.asgi import client_of, request
from dc_platform_tests.helpers.recent import Recent, Row
from dc_platform_tests.helpers.serving_http import Door
from dc_platform_tests.stack.harness import wait_for

MINUTE = 60_000


def ask(door: Door, path: str, *, token: str | None = None, **query: Any) -> Any:
    """The answer to a GET, which is 200; what was answered before is forgotten."""
    door.tail.view = door.served.view
    door.monitoring.monitor._holds_until = 0.0
    headers = {"Authorization": f"Bearer {token}"} if token else door.headers
    answer = request(door.app, "GET", f"/api/v1/monitoring/{path}", headers=headers, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def recent(tmp_path: Path) -> Recent:
    return Recent(tmp_path)


def random_rows(recent: Recent, random: Random) -> tuple[list[list[Row]], list[list[Row]]]:
    """Files of landed rows, and chunks of waiting ones, of two tenants, over 25 minutes."""

    def rows(count: int, *, landed: bool) -> list[Row]:
        return [
            recent.event(
                random.randrange(25 * MINUTE),
                int(math.exp(random.uniform(0, 12))) if landed else None,
                source=f"s{random.randrange(9)}",
                kind=f"t{random.randrange(12)}",
                tenant=random.choice(("default", "default", "other")),
                partition=random.randrange(2),
            )
            for _ in range(count)
        ]

    files = [rows(random.randrange(1, 400), landed=True) for _ in range(7)]
    chunks = [rows(random.randrange(1, 60), landed=False) for _ in range(3)]
    return files, chunks


@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_plain_counting(recent: Recent, seed: int) -> None:
    files, chunks = random_rows(recent, Random(seed))
    for file in files:
        recent.land(file)
    for chunk in chunks:
        recent.wait(chunk)
    recent.look()
    seen = ask(Door(recent), "overview")
    assert "countedSince" not in seen
    rows = [row for part in (*files, *chunks) for row in part if row["tenant_id"] == "default"]

    times, step = seen["timestamps"], seen["step"]
    assert step == 5_000
    assert seen["at"] - 7_000 < times[-1] + step <= seen["at"]
    first, end = times[0], times[-1] + step
    inside = [row for row in rows if first <= row["received_at"] // 1000 < end]
    per_step = Counter((row["received_at"] // 1000 - first) // step for row in inside)
    assert seen["received"]["series"] == [per_step[n] / 5 for n in range(len(times))]
    assert seen["received"]["events"] == len(inside)
    assert seen["received"]["max"] == max(per_step.values()) / 5

    def waited(edge: int) -> int:
        return sum(
            row["received_at"] // 1000 < edge
            and (row["processed_at"] is None or row["processed_at"] // 1000 >= edge)
            for row in rows
        )

    assert seen["lag"]["series"] == [waited(at + step) for at in times]
    waiting = [row for row in rows if row["processed_at"] is None]
    assert seen["lag"]["current"] == len(waiting)
    partitions = Counter(row["kafka_partition"] for row in waiting)
    assert seen["lag"]["partitions"] == [{"partition": p, "events": partitions[p]} for p in (0, 1)]

    for name, column in (("eventTypes", "event_type"), ("sources", "source_id")):
        counts = Counter(row[column] for row in inside)
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:8]
        key = {"eventTypes": "eventType", "sources": "sourceId"}[name]
        assert [(row[key], row["events"]) for row in seen[name]] == ranked
    lines = seen["received"]["bySource"]
    stacked = [sum(values) for values in zip(*(line["values"] for line in lines), strict=True)]
    others = seen["received"]["others"]
    assert [a + b for a, b in zip(stacked, others, strict=True)] == pytest.approx(
        seen["received"]["series"]
    )

    took = sorted(
        (row["processed_at"] - row["received_at"]) // 1000
        for row in rows
        if row["processed_at"] is not None and first <= row["processed_at"] // 1000 < end
    )
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        exact = took[math.ceil(share * len(took)) - 1]
        assert seen["latency"][name] == pytest.approx(exact, rel=0.06, abs=1)
    landed = [row for row in rows if row["processed_at"] is not None]
    assert seen["lag"]["newestLanded"] == max(r["received_at"] for r in landed) // 1000


@pytest.mark.parametrize(("window", "step"), [("15m", 5_000), ("1h", 20_000), ("24h", 480_000)])
def test_a_longer_window_has_longer_steps_and_all_events(
    recent: Recent, window: str, step: int
) -> None:
    recent.land([recent.event(minutes * MINUTE) for minutes in range(1, 23 * 60, 7)] * 20)
    recent.look()
    seen = ask(Door(recent), "overview", window=window)
    assert seen["step"] == step
    # Whole steps of which the last is over: at 15m two may be cut, the first by where the clock stands.
    assert len(seen["timestamps"]) in (178, 179, 180)
    total = sum(seen["received"]["series"]) * step / 1000
    assert total == pytest.approx(seen["received"]["events"], rel=0.01)
    assert total > 0


def test_rejected_events_have_their_reason_and_its_remedy(recent: Recent) -> None:
    recent.reject([10_000, 20_000, 30_000], "missing_field")
    recent.reject([20_000], "a_reason_of_a_newer_version")
    recent.reject([20_000], "missing_field", tenant="other")
    recent.land([recent.event(15_000)])
    recent.look()
    rejected = ask(Door(recent), "overview")["rejected"]
    assert rejected["events"] == 4
    assert [(row["reason"], row["events"]) for row in rejected["byReason"]] == [
        ("missing_field", 3),
        ("a_reason_of_a_newer_version", 1),
    ]
    assert rejected["byReason"][0]["remedy"] == "Add the field that the message names."
    assert rejected["byReason"][1]["remedy"] is None


def test_an_empty_lake_has_figures_of_nothing(recent: Recent) -> None:
    door = Door(recent)
    for window in ("15m", "1h", "24h"):
        seen = ask(door, "overview", window=window)
        assert seen["received"]["events"] == seen["rejected"]["events"] == 0
        assert seen["lag"]["newestLanded"] is None
        assert seen["latency"]["p99"] is None
        assert seen["eventTypes"] == seen["sources"] == seen["alerts"] == []
        assert seen["ledgerMade"] is None
    assert ask(door, "metrics")["metrics"]["processing_lag"] == {"current": 0, "avg": 0, "max": 0}


def test_a_tenant_sees_nothing_of_another(recent: Recent) -> None:
    door = Door(recent)
    source, _key = door.sources.create("secret-name", SourceType.SERVER, tenant_id="other")
    mine = recent.event(20_000, source=source.source_id, kind="mine")
    recent.land([mine, *(recent.event(20_000, kind="theirs", tenant="other") for _ in range(5))])
    recent.wait([recent.event(9_000, None, kind="theirs", tenant="other")])
    recent.reject([20_000], "theirs", tenant="other")
    recent.balance(tenant_id="other", missing=3)
    recent.look()
    seen = ask(door, "overview")
    assert "theirs" not in str(seen)
    assert "secret-name" not in str(seen)
    assert seen["received"]["events"] == 1
    assert seen["lag"]["current"] == 0
    assert seen["alerts"] == []
    sizes = {table["table"]: table for table in ask(door, "tables")["tables"]}
    assert sizes["silver.events"]["rows"] == 1
    assert (
        sizes["silver.quarantine"] | {"rows": 0, "bytes": 0, "files": 0}
        == (sizes["silver.quarantine"])
    )
    theirs = door.token_of("other")
    assert ask(door, "overview", token=theirs)["received"]["events"] == 6
    assert ask(door, "overview", token=theirs)["rejected"]["events"] == 1
    sizes = {table["table"]: table for table in ask(door, "tables", token=theirs)["tables"]}
    assert sizes["silver.events"]["rows"] == 5


def test_what_sampling_left_out_or_was_deleted_is_not_rejected(recent: Recent) -> None:
    recent.reject([20_000], "missing_field")
    recent.keep(20_000, [blocks.REJECTED, blocks.SAMPLED, blocks.SAMPLED, blocks.DELETED])
    recent.look()
    door = Door(recent)
    seen = ask(door, "overview")["rejected"]
    assert seen["events"] == 1
    assert [row["reason"] for row in seen["byReason"]] == ["missing_field"]
    sizes = {table["table"]: table["rows"] for table in ask(door, "tables")["tables"]}
    assert sizes["bronze.events"] == 4


def test_a_deletion_takes_its_events_out_of_the_figures(recent: Recent) -> None:
    payload = '{"userId":"u1"}'
    recent.land([*([recent.event(20_000)] * 3), recent.event(20_000, payload=payload)])
    recent.look()
    door = Door(recent)
    assert ask(door, "overview")["received"]["events"] == 4
    person = of_person("default", "userId", "u1")
    Eraser(recent.lake, "d", Stubs(needless_before=0)).erase(SILVER_EVENTS, person)
    recent.look()
    assert ask(door, "overview")["received"]["events"] == 3
    sizes = {table["table"]: table["rows"] for table in ask(door, "tables")["tables"]}
    assert sizes["silver.events"] == 3


def test_sources_have_their_names(recent: Recent) -> None:
    door = Door(recent)
    source, _key = door.sources.create("checkout", SourceType.SERVER)
    recent.land(
        [recent.event(20_000, source=source.source_id), recent.event(20_000, source="gone")]
    )
    recent.look()
    names = {row["sourceId"]: row["name"] for row in ask(door, "overview")["sources"]}
    assert names == {source.source_id: "checkout", "gone": None}


def test_a_broken_promise_is_an_alert(recent: Recent) -> None:
    door = Door(recent)
    recent.balance(received=5, landed=5)
    assert ask(door, "overview")["alerts"] == []
    recent.balance(source_id="unlucky", received=5, landed=3, missing=2)
    wait_for(lambda: ask(door, "overview")["alerts"])
    [alert] = ask(door, "overview")["alerts"]
    assert (alert["name"], alert["severity"]) == ("ledger_balances", "CRITICAL")
    assert alert["sourceId"] == "unlucky"
    assert "missing" in alert["message"]
    door.tail.kafka_answers = False
    names = [alert["name"] for alert in ask(door, "overview")["alerts"]]
    assert names == ["ingestion", "ledger_balances"]


# --- the metrics of design 4.4 ---


def test_metrics_are_as_the_design_has_them(recent: Recent) -> None:
    recent.land([recent.event(ago) for ago in range(10_000, 70_000, 100)])
    recent.wait([recent.event(4_000, None)] * 3)
    recent.look()
    door = Door(recent)
    asked = "ingestion_rate,processing_lag"
    assert ask(door, "metrics", metrics=asked)["metrics"].keys() == set(asked.split(","))
    first, last = recent.now_ms - 60_000, recent.now_ms - 20_000
    seen = ask(door, "metrics", **{"from": first, "to": last, "metrics": "ingestion_rate"})
    assert seen == {"metrics": {"ingestion_rate": {"current": 10.0, "avg": 10.0, "max": 10.0}}}
    seen = ask(door, "metrics", **{"from": first, "to": last, "series": "true"})
    assert seen["step"] == 5_000
    assert seen["metrics"]["ingestion_rate"]["series"] == [10.0] * len(seen["timestamps"])
    assert seen["metrics"]["processing_latency"]["avg"] == pytest.approx(1000, rel=0.06)
    assert seen["metrics"]["processing_lag"]["current"] == 3


def test_older_times_than_are_kept_are_said(recent: Recent) -> None:
    recent.look()
    seen = ask(Door(recent), "metrics", **{"from": "2020-01-01"})
    assert seen["countedSince"] == pytest.approx(recent.now_ms - monitor.DAY_MS, abs=10 * MINUTE)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"metrics": "cpu"}, "metrics: there is no 'cpu'; there are ingestion_rate"),
        ({"from": "yesterday"}, "from: expected epoch milliseconds or ISO 8601"),
        ({"from": "²"}, "from: expected epoch milliseconds or ISO 8601"),
        ({"to": "--5"}, "to: expected epoch milliseconds or ISO 8601"),
        ({"to": "9" * 5000}, "to: expected epoch milliseconds or ISO 8601"),
        ({"from": 5, "to": 5}, "from has to be before to"),
        ({"series": "perhaps"}, "series should be a valid boolean"),
    ],
)
def test_what_is_not_understood_is_one_sentence(
    recent: Recent, query: dict[str, Any], sentence: str
) -> None:
    door = Door(recent)
    answer = request(
        door.app, "GET", "/api/v1/monitoring/metrics", headers=door.headers, params=query
    )
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(sentence)


def test_a_few_are_answered_at_once(recent: Recent, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait without a thread of those that all requests share."""
    door = Door(recent)
    together = threading.Barrier(8)
    inside: list[int] = []
    most: list[int] = []

    def tables(*_: Any) -> list[Any]:
        inside.append(1)
        most.append(len(inside))
        together.wait(60)
        inside.pop()
        together.wait(60)
        return []

    monkeypatch.setattr(door.monitoring.sizes, "tables", tables)

    async def ask() -> list[httpx.Response]:
        async with client_of(door.app) as client:
            path = "/api/v1/monitoring/tables"
            return await asyncio.gather(
                *(client.get(path, headers=door.headers) for _ in range(24))
            )

    assert [answer.status_code for answer in asyncio.run(ask())] == [200] * 24
    assert max(most) == 8


@pytest.mark.parametrize("path", ["metrics", "overview", "tables"])
def test_nobody_looks_without_a_token_or_before_there_is_a_view(recent: Recent, path: str) -> None:
    door = Door(recent)
    assert request(door.app, "GET", f"/api/v1/monitoring/{path}").status_code == 401
    door.tail.view = None
    answer = request(door.app, "GET", f"/api/v1/monitoring/{path}", headers=door.headers)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0


# --- what it costs ---


def test_a_file_is_counted_once_whoever_looks(
    recent: Recent, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(recent)
    counter = door.monitoring.monitor.counter
    counted: list[str] = []
    real = counter.files

    def files(statements: Any, paths: list[str], columns: Any) -> Any:
        counted.extend(paths)
        return real(statements, paths, columns)

    monkeypatch.setattr(counter, "files", files)
    for number in range(3):
        recent.land([recent.event(20_000 + number)])
    recent.look()
    for window in ("15m", "24h"):
        for _ in range(5):
            ask(door, "overview", window=window)
    assert len(counted) == len(set(counted)) == 3
    recent.land([recent.event(20_000)])
    recent.look()
    assert ask(door, "overview")["received"]["events"] == 4
    assert len(counted) == 4


def test_all_who_look_share_a_moment(recent: Recent) -> None:
    recent.land([recent.event(20_000)])
    recent.look()
    kept = Door(recent).monitoring
    assert recent.view is not None
    first = kept.moment(recent.view)
    assert kept.moment(recent.view) is first


def test_a_moment_does_not_hold_the_tail(recent: Recent) -> None:
    recent.wait([recent.event(20_000, None)])
    view = recent.look()
    chunk = weakref.ref(view.chunks[0])
    kept = Door(recent).monitoring
    assert kept.moment(view).partitions().num_rows == 1
    recent._waiting.clear()
    view = recent.look()
    gc.collect()
    assert chunk() is None


def test_a_large_lake_is_counted_bit_by_bit_the_newest_first(
    recent: Recent, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minutes in (12, 2, 7):
        recent.land([recent.event(minutes * MINUTE)])
    recent.look()
    monkeypatch.setattr(rollup, "_TOGETHER", 1)
    monkeypatch.setattr(monitor, "_BUDGET_SECONDS", -1.0)
    door = Door(recent)
    for events, since in ((1, 7), (2, 12)):
        seen = ask(door, "overview")
        assert seen["received"]["events"] == events
        # From a millisecond after the newest event that is not counted yet.
        assert seen["countedSince"] == recent.now_ms - since * MINUTE + 1
    seen = ask(door, "overview")
    assert seen["received"]["events"] == 3
    assert "countedSince" not in seen


def test_of_very_many_sources_the_largest_are_told_apart(recent: Recent) -> None:
    many = [recent.event(20_000, source=f"s{n:03}") for n in range(150)]
    recent.land([*many, *(recent.event(20_000, source="large") for _ in range(9))])
    recent.look()
    seen = ask(Door(recent), "overview")
    assert seen["received"]["events"] == 159
    assert seen["sources"][0] == {
        "sourceId": "large",
        "name": None,
        "events": 9,
        "share": round(9 / 159, 4),
        "exact": False,
    }


def test_tables_have_rows_bytes_and_files(recent: Recent) -> None:
    recent.land([recent.event(20_000)] * 3)
    recent.land([recent.event(20_000)] * 2)
    recent.look()
    sizes = {table["table"]: table for table in ask(Door(recent), "tables")["tables"]}
    assert list(sizes) == [spec.name for spec in TABLES]
    assert recent.view is not None
    silver = sizes["silver.events"]
    assert (silver["rows"], silver["files"], silver["version"]) == (5, 2, 2)
    assert silver["bytes"] == recent.view.silver.bytes
    assert sizes["bronze.events"]["rows"] == sizes["bronze.events"]["bytes"] == 0
