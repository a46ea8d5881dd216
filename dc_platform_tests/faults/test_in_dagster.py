"""Landing under the lease, as Dagster runs it, under load: terminated in the UI, frozen by SIGSTOP and
woken when its successor has committed. Each acknowledged event is in silver once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import httpx
import pytest

from dc_platform_tests.e2e.platform import Platform, Source, running, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running(tmp_path_factory.mktemp("faults") / "stack") as started:
        yield started


class Client(threading.Thread):
    """Sends requests of 20 events through the gateway, again until they are acknowledged."""

    def __init__(self, stack: Platform, source: Source) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._source = source
        self._ended = threading.Event()
        self.acknowledged: list[str] = []

    def run(self) -> None:
        url = f"{self._stack.info['gateway']}/api/v1/events"
        with httpx.Client(headers={"X-API-Key": self._source.key}, timeout=30) as client:
            while not self._ended.wait(0.05):
                ids = [str(uuid.uuid4()) for _ in range(20)]
                body = {"events": [{"eventId": i, "eventType": "f", "payload": {}} for i in ids]}
                while client.post(url, json=body).status_code != 200:
                    time.sleep(0.2)
                self.acknowledged += ids

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join(timeout=60)


class Scene:
    """A source of the stack, and what is landed of it."""

    def __init__(self, stack: Platform) -> None:
        self.stack = stack
        self.source = stack.source(f"faults-{uuid.uuid4().hex[:6]}")
        self._token = stack.token("query")

    def landed(self) -> int:
        return int(self._rows("count(*) as n")[0]["n"])

    def assert_exact(self, ids: list[str]) -> None:
        wait_for(lambda: self.landed() >= len(ids), 120, "all events in silver")
        assert Counter(row["event_id"] for row in self._rows("event_id")) == Counter(ids)

    def go_on(self, seconds: float = 120) -> None:
        """Wait until more has landed."""
        before = self.landed()
        wait_for(lambda: self.landed() > before, seconds, "landing to go on")

    def _rows(self, columns: str) -> list[dict[str, Any]]:
        where = f"where source_id = '{self.source.source_id}'"
        return self.stack.rows(f"select {columns} from silver.events {where}", self._token)


@pytest.fixture
def scene(stack: Platform) -> Scene:
    return Scene(stack)


def runs(stack: Platform) -> dict[str, str]:
    """Landing run → status."""
    found = stack.graphql(
        """{ runsOrError(filter: {pipelineName: "landing"}) {
             ... on Runs { results { runId status } } } }"""
    )["runsOrError"]["results"]
    return {run["runId"]: run["status"] for run in found}


def lands(stack: Platform) -> str:
    """The one landing run that is at work."""
    (run_id,) = wait_for(
        lambda: [r for r, status in runs(stack).items() if status == "STARTED"], 90, "a landing run"
    )
    return str(run_id)


def test_a_run_that_is_terminated_in_the_ui_is_replaced(scene: Scene) -> None:
    stack = scene.stack
    with Client(stack, scene.source) as client:
        scene.go_on()
        for _ in range(2):
            run_id, pid = lands(stack), stack.pid("landing")
            answer = stack.graphql(
                "mutation($id: String!) { terminateRun(runId: $id) { __typename } }", id=run_id
            )["terminateRun"]
            assert answer["__typename"] == "TerminateRunSuccess"
            wait_for(lambda run_id=run_id: runs(stack)[run_id] == "CANCELED", 60, "its end")
            wait_for(lambda pid=pid: stack.pid("landing") not in (None, pid), 90, "a new run")
            scene.go_on()
    scene.assert_exact(client.acknowledged)


def test_a_run_that_is_frozen_is_replaced_and_fenced_when_it_wakes(scene: Scene) -> None:
    stack = scene.stack
    with Client(stack, scene.source) as client:
        scene.go_on()
        run_id, pid = lands(stack), stack.pid("landing")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: stack.pid("landing") not in (None, pid), 120, "a successor")
            scene.go_on()
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_for(lambda: not _lives(pid), 90, "the end of the one that was frozen")
        scene.go_on()
        assert runs(stack)[run_id] in ("SUCCESS", "FAILURE", "CANCELED")
        assert lands(stack) != run_id
    scene.assert_exact(client.acknowledged)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
