"""What a data team sees in Dagster, through the API that its UI uses."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from dc_platform.orchestration.gold import CHECK_SPECS
from dc_platform_tests.e2e.platform import Platform, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(400)]

SILVER = ["silver", "events"]
BRONZE = ["bronze", "events"]
LEDGER = ["ops", "ledger"]
_SELECTOR = {"repositoryLocationName": "dc_platform", "repositoryName": "__repository__"}


def send(platform: Platform, count: int) -> str:
    source = platform.source(f"dagster-{uuid.uuid4().hex[:6]}")
    events = [{"eventType": "d", "payload": {"n": i}, "eventId": f"d{i}"} for i in range(count)]
    answer = httpx.post(
        f"{platform.info['gateway']}/api/v1/events",
        json={"events": events},
        headers={"X-API-Key": source.key},
        timeout=30,
    )
    assert answer.json()["accepted"] == count
    return source.source_id


def landed(platform: Platform, token: str, source_id: str, count: int) -> None:
    sql = f"select count(*) as n from silver.events where source_id = '{source_id}'"
    wait_for(lambda: platform.rows(sql, token)[0]["n"] == count, 90, "events in silver")


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def materializations(platform: Platform, key: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = platform.graphql(
        """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
             assetMaterializations(limit: 50) { partition metadataEntries {
               label ... on IntMetadataEntry { intValue }
               ... on MarkdownMetadataEntry { mdStr }
               ... on JsonMetadataEntry { jsonString } } } } } }""",
        key={"path": key},
    )["assetNodeOrError"]["assetMaterializations"]
    return found


def test_lineage_runs_from_the_topic_to_gold(platform: Platform) -> None:
    nodes = platform.graphql(
        """{ assetNodes { assetKey { path } groupName isExecutable isPartitioned
             dependencyKeys { path } owners { ... on TeamAssetOwner { team } }
             description kinds hasMaterializePermission
             assetChecksOrError { ... on AssetChecks { checks { name } } } } }"""
    )["assetNodes"]
    by_key = {"/".join(n["assetKey"]["path"]): n for n in nodes}
    assert set(by_key) == {
        "kafka/events",
        "bronze/events",
        "silver/events",
        "silver/quarantine",
        "silver/quarantine_replay",
        "gold/events_hourly",
        "gold/sources_daily",
        "gold/event_types_top",
        "gold/sketches_hourly",
        "gold/metrics_hourly",
        "ops/ledger",
        "ops/lake_files",
        "ops/dagster_storage",
        "ops/backup",
        "ops/retention",
        "search/events",
    }
    assert by_key["bronze/events"]["dependencyKeys"] == [{"path": ["kafka", "events"]}]
    assert by_key["silver/events"]["dependencyKeys"] == [{"path": BRONZE}]
    assert by_key["silver/quarantine"]["dependencyKeys"] == [{"path": BRONZE}]
    assert not by_key["kafka/events"]["isExecutable"]
    assert by_key["silver/events"]["isPartitioned"]
    assert all(n["owners"] and n["description"] and n["kinds"] for n in nodes)
    checks = {c["name"] for n in nodes for c in n["assetChecksOrError"].get("checks", [])}
    assert checks == {
        "retention_guard",
        "no_offset_gaps",
        "unique_event_ids",
        "reused_event_ids",
        "every_accepted_event_landed",
        "ledger_balances",
        *(check.name for check in CHECK_SPECS),
    }


def test_the_long_run_reports_rows_offsets_plot_and_the_days_it_touched(
    platform: Platform, query_token: str
) -> None:
    landed(platform, query_token, send(platform, 25), 25)

    def reported() -> dict[str, Any] | None:
        for event in materializations(platform, BRONZE):
            entries = {e["label"]: e for e in event["metadataEntries"]}
            # A report may come when the first of them have landed.
            if "plot" in entries and entries["received"]["intValue"] >= 25:
                return entries
        return None

    entries = wait_for(reported, 90, "a report of the landing run")
    assert entries["dagster/row_count"]["intValue"] >= 25
    offsets = json.loads(entries["offsets"]["jsonString"])
    assert offsets
    assert all(offset > 0 for offset in offsets.values())
    assert entries["plot"]["mdStr"].startswith("![landing](data:image/png;base64,")
    days = {m["partition"] for m in materializations(platform, SILVER)}
    assert today() in days


def test_what_has_landed_is_in_gold_within_two_minutes(
    platform: Platform, query_token: str
) -> None:
    source_id = send(platform, 30)
    landed(platform, query_token, source_id, 30)
    sql = (
        "select sum(event_count) as n, max(silver_version) as version from gold.events_hourly"
        f" where source_id = '{source_id}'"
    )
    # On a machine that other tests keep busy, twice that.
    wait_for(lambda: platform.rows(sql, query_token)[0]["n"] == 30, 240, "events in gold")
    days = {m["partition"] for m in materializations(platform, ["gold", "events_hourly"])}
    assert today() in days


def test_the_checks_pass_and_say_what_they_looked_at(platform: Platform, query_token: str) -> None:
    landed(platform, query_token, send(platform, 10), 10)
    launched = platform.graphql(
        """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
             __typename ... on LaunchRunSuccess { run { runId } } } }""",
        params={
            "mode": "default",
            "selector": {**_SELECTOR, "jobName": "checks"},
            "executionMetadata": {"tags": [{"key": "dc_platform/lane", "value": "checks"}]},
        },
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def ended() -> str | None:
        run = platform.graphql(
            "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run_id
        )["runOrError"]
        return run["status"] if run["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

    assert wait_for(ended, 180, "the checks to end") == "SUCCESS"
    # Landing goes on and reports: the checks still stand, and are not "not evaluated" again.
    reports = len(materializations(platform, BRONZE))
    landed(platform, query_token, send(platform, 10), 10)
    wait_for(lambda: len(materializations(platform, BRONZE)) > reports, 90, "another report")
    for key in (BRONZE, SILVER, LEDGER):
        checks = platform.graphql(
            """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
                 assetChecksOrError { ... on AssetChecks { checks { name
                   executionForLatestMaterialization { status
                     evaluation { success metadataEntries { label
                       ... on IntMetadataEntry { intValue } } } } } } } } } }""",
            key={"path": key},
        )["assetNodeOrError"]["assetChecksOrError"]["checks"]
        for check in checks:
            evaluation = check["executionForLatestMaterialization"]["evaluation"]
            findings = {e["label"]: e.get("intValue") for e in evaluation["metadataEntries"]}
            assert evaluation["success"], (check["name"], findings)
            assert findings["findings"] == 0


def test_the_sensor_runs_by_default_and_lets_one_run_land(platform: Platform) -> None:
    state = platform.graphql(
        """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) {
             ... on Sensor { sensorState { status } } } }""",
        selector={**_SELECTOR, "sensorName": "landing_sensor"},
    )["sensorOrError"]["sensorState"]
    assert state["status"] == "RUNNING"
    runs = platform.graphql(
        """{ runsOrError(filter: {statuses: [STARTED], pipelineName: "landing"}) {
             ... on Runs { results { runId } } } }"""
    )["runsOrError"]["results"]
    assert len(runs) <= 1
