"""A backfill of three days from Dagster's API while events flow and land: what did not change stays
byte for byte, what was lost comes back, and the run says what it cost.

Two of the days are older than the stack: they were landed by a lander with another clock, from a topic
that is gone.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from dc_platform.broker.records import TopicInfo
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import CommitConflictError
from dc_platform.lake.rewrite import SORTED
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import Batch, Range
from dc_platform.landing.commits import Committer
from dc_platform_tests.e2e.platform import Platform, Source, wait_for
from dc_platform_tests.helpers.landing import decoder, lines
from dc_platform_tests.helpers.records import TOPIC_ID, block

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

SILVER = ["silver", "events"]
GONE = TopicInfo("gone", "cluster-gone", TOPIC_ID, 1)
_BLOCK = 500
_MOST_LAG_SECONDS = 60


def land_old_days(lake: Lake, days: list[date], events: int) -> None:
    """Days of `events` each, in some commits, by a lander whose clock stands there."""
    offset = 0
    for day in days:
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        writer = Committer(
            lake, GONE, [0], identity_memory_mb=64, owner="test", clock=lambda noon=noon: noon
        )
        writer.begin({0: 0})
        for _ in range(4):
            start = offset
            records = []
            for _ in range(events // 4 // _BLOCK):
                numbers = range(offset * _BLOCK, (offset + 1) * _BLOCK)
                records.append(block(lines(*numbers), offset))
                offset += 1
            judged = decoder().decode(records)
            writer.land(Batch(judged, {0: Range(start, offset)}, judged.nbytes))
        writer.close()


class Flow:
    """Events that are sent until the end of the block, so many a second."""

    def __init__(self, platform: Platform, source: Source, rate: int) -> None:
        self.sent = 0
        # When so many had been sent.
        self.history: list[tuple[float, int]] = []
        self._url = f"{platform.info['gateway']}/api/v1/events"
        self._source = source
        self._rate = rate
        self._stop = threading.Event()
        self._error: Exception | None = None

    def _send(self) -> None:
        try:
            with httpx.Client(headers={"X-API-Key": self._source.key}, timeout=30) as client:
                while not self._stop.wait(0.25):
                    size = self._rate // 4
                    events = [
                        {"eventType": "f", "payload": {"n": n}, "eventId": f"f{n}"}
                        for n in range(self.sent, self.sent + size)
                    ]
                    answer = client.post(self._url, json={"events": events})
                    assert answer.json()["accepted"] == size
                    self.sent += size
                    self.history.append((time.monotonic(), self.sent))
        except Exception as error:
            self._error = error

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Send for the length of the block."""
        thread = threading.Thread(target=self._send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(60)
        assert self._error is None, self._error

    def age(self, landed: int) -> float:
        """Seconds since the oldest event was sent that is not among the first `landed`."""
        waiting = [at for at, sent in self.history if sent > landed]
        return time.monotonic() - waiting[0] if waiting else 0.0


def files_of(lake: str, days: list[str]) -> dict[str, str]:
    """Name and SHA-256 of each live file of the days in silver."""
    table = LakeTable(Lake(lake), SILVER_EVENTS)
    paths = [path for path in table.snapshot().paths if any(f"={day}/" in path for day in days)]
    return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}


def harm(lake: Lake, day: str) -> None:
    """Take a file of a day out of silver, between two commits of landing."""
    for _ in range(50):
        silver = LakeTable(lake, SILVER_EVENTS)
        paths = silver.snapshot().actions["path"].to_pylist()
        with suppress(CommitConflictError):
            silver.put_in_place([next(p for p in paths if f"={day}/" in p)], [], metadata={})
            return
    raise AssertionError("landing was quicker each time")


def compacted(lake: str, days: list[str]) -> bool:
    files = files_of(lake, days)
    return bool(files) and all(Path(path).name.startswith(SORTED) for path in files)


def launch(platform: Platform, days: list[str]) -> str:
    launched = platform.graphql(
        """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(
             backfillParams: $params) { __typename
               ... on LaunchBackfillSuccess { backfillId }
               ... on PythonError { message } } }""",
        params={"assetSelection": [{"path": SILVER}], "partitionNames": days},
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    backfill: str = launched["backfillId"]
    return backfill


def status_of(platform: Platform, backfill: str) -> str:
    found: str = platform.graphql(
        """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
             ... on PartitionBackfill { status } } }""",
        id=backfill,
    )["partitionBackfillOrError"]["status"]
    return found


def runs_of(platform: Platform, backfill: str) -> list[dict[str, Any]]:
    """Runs of a backfill, with what their materializations say."""
    found: list[dict[str, Any]] = platform.graphql(
        """query($tag: [ExecutionTag!]) { runsOrError(filter: {tags: $tag}) { ... on Runs { results {
             runId status startTime endTime
             assetMaterializations { partition metadataEntries { label
               ... on FloatMetadataEntry { floatValue } ... on IntMetadataEntry { intValue }
               ... on BoolMetadataEntry { boolValue } } } } } } }""",
        tag=[{"key": "dagster/backfill", "value": backfill}],
    )["runsOrError"]["results"]
    return found


def by_day(runs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    values = ("floatValue", "intValue", "boolValue")
    return {
        event["partition"]: {
            entry["label"]: next((entry[v] for v in values if entry.get(v) is not None), None)
            for entry in event["metadataEntries"]
        }
        for run in runs
        for event in run["assetMaterializations"]
    }


def partition_status(platform: Platform) -> set[str]:
    """Days that the UI shows as materialized."""
    ranges = platform.graphql(
        """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
             assetPartitionStatuses { ... on TimePartitionStatuses { ranges {
               status startKey endKey } } } } } }""",
        key={"path": SILVER},
    )["assetNodeOrError"]["assetPartitionStatuses"]["ranges"]
    days: set[str] = set()
    for found in ranges:
        if found["status"] == "MATERIALIZED":
            day, last = (date.fromisoformat(found[k]) for k in ("startKey", "endKey"))
            while day <= last:
                days.add(day.isoformat())
                day += timedelta(days=1)
    return days


def backfilled(platform: Platform, token: str, *, events: int, rate: int) -> None:
    lake = Lake(platform.info["lake"])
    source = platform.source(f"flow-{uuid.uuid4().hex[:6]}")
    # Midnight may come at any moment: of the day that then begins nothing is asked.
    today = datetime.now(UTC).date()
    old = [today - timedelta(days=2), today - timedelta(days=1)]
    days = [day.isoformat() for day in (*old, today)]
    land_old_days(lake, old, events)
    flow = Flow(platform, source, rate)
    count = f"select count(*) as n from silver.events where source_id = '{source.source_id}'"

    def landed() -> int:
        return int(platform.rows(count, token)[0]["n"])

    with flow.flowing():
        wait_for(lambda: landed() > 0, 120, "the flow to land")
        # The landing run makes one file of a closed hour; that done, nothing touches the old days.
        wait_for(lambda: compacted(lake.uri, days[:2]), 300, "compaction of the old days")
        # A day that was harmed comes back, and no other is touched.
        before = files_of(lake.uri, days[:1])
        harm(lake, days[1])
        worst = went(platform, launch(platform, days), flow, landed, changed=[days[1]])
        assert files_of(lake.uri, days[:1]) == before
    wait_for(lambda: landed() == flow.sent, 120, "all that was sent to land")
    print(f"{flow.sent} events flowed, the oldest waited {worst:.1f} s for its commit")
    assert worst < _MOST_LAG_SECONDS
    assert set(days) <= partition_status(platform)
    for day in days[:2]:
        sql = f"select count(*) as n from silver.events where ingest_date = date '{day}'"
        assert platform.rows(sql, token)[0]["n"] == events
    audit = json.loads(platform.dcp("audit", "--json"))
    assert (audit["balanced"], audit["cannotTell"]) == (True, [])
    assert (audit["totals"]["missing"], audit["totals"]["gap"]) == (0, 0)


def went(platform: Platform, backfill: str, flow: Flow, landed: Any, changed: list[str]) -> float:
    """Waits for the end of a backfill; gives how long an event waited for its commit meanwhile."""
    versions, ages = set(), []

    def ended() -> str | None:
        ages.append(flow.age(landed()))
        versions.add(LakeTable(Lake(platform.info["lake"]), SILVER_EVENTS).version)
        status = status_of(platform, backfill)
        return None if status in ("REQUESTED", "COMPLETING") else status

    begun = time.monotonic()
    status = wait_for(ended, 600, "the backfill to end")
    assert status in ("COMPLETED", "COMPLETED_SUCCESS"), status
    runs = runs_of(platform, backfill)
    # Three days that follow each other are one run: it imports Dagster once.
    told = by_day(runs)
    assert [run["status"] for run in runs] == ["SUCCESS"], told
    assert sorted(day for day, of in told.items() if of["changed"]) == changed
    assert len(told) == 3
    # Landing went on.
    assert len(versions) > 2
    for day, of in sorted(told.items()):
        rows, cpu = of["dagster/partition_row_count"], of["CPU seconds"]
        print(f"{day}: {rows:,} rows, {of['seconds']} s, CPU {cpu} s")
    whole = max(of["CPU seconds of the run"] for of in told.values())
    print(f"the run: {time.monotonic() - begun:.1f} s from the request, CPU {whole} s")
    return max(ages)


def test_three_days_while_landing_runs(platform: Platform, query_token: str) -> None:
    backfilled(platform, query_token, events=8_000, rate=200)


@pytest.mark.lakehouse
def test_three_days_of_a_million_events_while_landing_runs(
    platform: Platform, query_token: str
) -> None:
    backfilled(platform, query_token, events=1_000_000, rate=1_000)
