"""Landing dies with everything of Dagster that would notice: somebody lands again soon.

Nobody is left who would tell Dagster's database that the run has died; the lease does.
"""

from __future__ import annotations

import uuid

import httpx
import pytest

from dc_platform_tests.e2e.platform import Platform, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

BRONZE = ["bronze", "events"]
_SELECTOR = {
    "repositoryLocationName": "dc_platform",
    "repositoryName": "__repository__",
    "pipelineName": "__ASSET_JOB",
    "assetSelection": [{"path": BRONZE}],
}


@pytest.fixture
def stack(platform: Platform) -> Platform:
    """The shared one: its supervisor brings back what is killed here."""
    return platform


def send_and_wait(stack: Platform) -> None:
    """Ten events more are in silver."""
    source, token = stack.source(f"lander-{uuid.uuid4().hex[:6]}"), stack.token("query")
    events = [{"eventType": "l", "payload": {"n": n}} for n in range(10)]
    answer = httpx.post(
        f"{stack.info['gateway']}/api/v1/events",
        json={"events": events},
        headers={"X-API-Key": source.key},
        timeout=30,
    )
    assert answer.json()["accepted"] == len(events)
    sql = f"select count(*) as n from silver.events where source_id = '{source.source_id}'"
    wait_for(lambda: stack.rows(sql, token)[0]["n"] == len(events), 90, "the events in silver")


def kill_landing_and_dagster(stack: Platform) -> int:
    """All at the same moment; gives the process id of the landing run."""
    wait_for(lambda: stack.pid("landing"), 180, "a landing run")
    stack.kill("dagster_daemon")
    stack.kill("code_server")
    return stack.kill("landing")


def unfinished(stack: Platform) -> list[str]:
    found = stack.graphql(
        """{ runsOrError(filter: {statuses: [STARTING, STARTED, CANCELING]}) {
             ... on Runs { results { runId assetSelection { path } } } } }"""
    )["runsOrError"]["results"]
    return [r["runId"] for r in found if r["assetSelection"] in (None, [{"path": BRONZE}])]


def materialize_bronze_by_hand(stack: Platform) -> str:
    """What the button in the UI does; gives the run's id."""
    launched = stack.graphql(
        """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
             __typename ... on LaunchRunSuccess { run { runId } }
             ... on PythonError { message } } }""",
        params={"mode": "default", "selector": _SELECTOR, "executionMetadata": {"tags": []}},
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id: str = launched["run"]["runId"]
    return run_id


def test_a_landing_run_killed_with_its_code_server_is_replaced(stack: Platform) -> None:
    send_and_wait(stack)
    dead = kill_landing_and_dagster(stack)
    send_and_wait(stack)
    wait_for(lambda: stack.pid("landing") not in (None, dead), 90, "a new landing run")


def test_one_that_was_started_by_hand_is_too(stack: Platform) -> None:
    before = wait_for(lambda: stack.pid("landing"), 180, "a landing run")
    run_id = materialize_bronze_by_hand(stack)
    # It asks for the lease and is let in.
    wait_for(lambda: stack.pid("landing") not in (None, before), 90, "the hand-over")
    dead = kill_landing_and_dagster(stack)
    send_and_wait(stack)
    wait_for(lambda: stack.pid("landing") not in (None, dead), 90, "a new landing run")
    wait_for(lambda: run_id not in unfinished(stack), 180, "the end of the dead run")
