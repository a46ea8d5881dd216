"""A replay as people start it: a backfill of `silver/quarantine_replay`, and the verb."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from dc_platform_tests.e2e.platform import Platform, Source, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

REPLAY = ["silver", "quarantine_replay"]
EVENTS = 40


@pytest.fixture(scope="module")
def broken(platform: Platform, query_token: str) -> Source:
    """A source whose events are all in quarantine."""
    source = platform.source(f"replay-{uuid.uuid4().hex[:6]}")
    events = [{"eventId": f"r{n}", "eventType": n, "payload": {"n": n}} for n in range(EVENTS)]
    answer = httpx.post(
        f"{platform.info['gateway']}/api/v1/events",
        json={"events": events},
        headers={"X-API-Key": source.key},
        timeout=30,
    )
    assert answer.json()["rejected"] == EVENTS
    sql = f"select count(*) as n from silver.quarantine where source_id = '{source.source_id}'"
    wait_for(lambda: platform.rows(sql, query_token)[0]["n"] == EVENTS, 90, "rows in quarantine")
    return source


def backfill(platform: Platform, days: list[str], config: dict[str, Any]) -> list[dict[str, Any]]:
    """Launch one, wait for its end; gives the metadata of each day's materialization."""
    run_config = {"ops": {"silver__quarantine_replay": {"config": config}}}
    launched = platform.graphql(
        """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(
             backfillParams: $params) { __typename
               ... on LaunchBackfillSuccess { backfillId }
               ... on PythonError { message stack } } }""",
        params={
            "assetSelection": [{"path": REPLAY}],
            "partitionNames": days,
            "runConfigData": json.dumps(run_config),
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def ended() -> str | None:
        status: str = platform.graphql(
            """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
                 ... on PartitionBackfill { status } } }""",
            id=launched["backfillId"],
        )["partitionBackfillOrError"]["status"]
        return None if status in ("REQUESTED", "COMPLETING") else status

    status = wait_for(ended, 300, "the backfill to end")
    assert status in ("COMPLETED", "COMPLETED_SUCCESS"), platform.logs()
    found = platform.graphql(
        """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
             assetMaterializations(limit: 50) { partition metadataEntries {
               label ... on IntMetadataEntry { intValue } } } } } }""",
        key={"path": REPLAY},
    )["assetNodeOrError"]["assetMaterializations"][: len(days)]
    assert {f["partition"] for f in found} == set(days)
    return [{e["label"]: e.get("intValue") for e in f["metadataEntries"]} for f in found]


def test_a_backfill_of_two_days_repairs_what_it_selects_and_twice_adds_nothing(
    platform: Platform, query_token: str, broken: Source
) -> None:
    today = datetime.now(UTC).date()
    days = [(today - timedelta(days=1)).isoformat(), today.isoformat()]
    config = {
        "source": broken.source_id,
        "reason": "wrong_type",
        "patch": '{"eventType": "repaired"}',
    }
    reports = backfill(platform, days, config)
    assert sum(r["replayed"] for r in reports) == EVENTS
    assert sum(r["still rejected"] for r in reports) == 0
    sql = (
        "select count(*) as n, count(distinct client_event_id) as ids, min(event_type) as type"
        f" from events where source_id = '{broken.source_id}'"
    )
    once = [{"n": EVENTS, "ids": EVENTS, "type": "repaired"}]
    wait_for(lambda: platform.rows(sql, query_token) == once, 90, "the repaired events")
    selected = ("--source", broken.source_id, "--patch", config["patch"], "--json")
    again = json.loads(platform.dcp("quarantine", "replay", *selected))
    assert (again["rows"], again["replayed"], again["rejected"]) == (0, 0, 0)
    listed = json.loads(platform.dcp("quarantine", "list", "--source", broken.source_id, "--json"))
    assert (listed["count"], listed["replayed"], listed["open"]) == (EVENTS, EVENTS, 0)
    one = listed["examples"][0]
    shown = platform.dcp("quarantine", "show", one["quarantineId"])
    assert "replay     event 0 replayed" in shown
    assert platform.dcp("quarantine", "show", one["quarantineId"], "--raw") == one["excerpt"]
    landed = sql.replace("from events", "from silver.events")
    wait_for(lambda: platform.rows(landed, query_token) == once, 90, "them in silver")
    replays = (
        "select result, count(*) as n from ops.replays"
        f" where source_id = '{broken.source_id}' group by result"
    )
    assert platform.rows(replays, query_token) == [{"result": "replayed", "n": EVENTS}]
