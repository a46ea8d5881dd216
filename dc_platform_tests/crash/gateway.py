"""A gateway that is killed at a point, and a client that sends again until it is told `accepted`."""

from __future__ import annotations

import signal
import time
from typing import Any

import httpx

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.points import Point
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.settings import Settings
from dc_platform.stack import ports
from dc_platform_tests.crash.scene import Scene
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.lake import read_table

_REQUESTS = 40
_PATIENCE_SECONDS = 120


def killed_gateway(scene: Scene, seed: int, point: Point) -> None:
    """Requests one after the other; the gateway dies in the middle of one and is started again."""
    registry = Settings(data_dir=scene.directory / "data").registry
    migrate(registry)
    _source, key = Sources(Database(registry)).create("sender", SourceType.APPLICATION)
    port = ports.choose(needed=("gateway",), remembered={}, auto=True)["gateway"]
    command = ["dc_platform.gateway", "--port", str(port)]
    nth = 1 + seed * 9
    gateway = scene.start(command, {"DCP_CRASH_AT": f"{point}:{nth}"})
    requests = [_request(scene, number) for number in range(_REQUESTS)]
    deaths = 0
    try:
        with httpx.Client(headers={"X-API-Key": key}, timeout=30) as client:
            for request in requests:
                deadline = time.monotonic() + _PATIENCE_SECONDS
                while not _accepted(client, port, request):
                    assert time.monotonic() < deadline, scene.said()
                    if gateway.exitcode is not None:
                        assert gateway.exitcode == -signal.SIGKILL, scene.said()
                        deaths += 1
                        gateway = scene.start(command, {})
                    time.sleep(0.05)
    finally:
        gateway.kill()
        gateway.join()
    assert deaths == 1
    scene.environment["DCP_UNKNOWN_SOURCES"] = "quarantine"
    scene.land()
    expected = {event["eventId"] for request in requests for event in request["events"]}
    scene.events = len(expected)
    landed = [row[0] for row in read_table(scene.lake, SILVER_EVENTS, "event_id")]
    lost, doubled = len(expected - set(landed)), len(landed) - len(set(landed))
    assert (lost, doubled, set(landed) - expected) == (0, 0, set())


def _request(scene: Scene, number: int) -> dict[str, Any]:
    """Small ones share a block, large ones are several."""
    size = scene.chance.choice([1, 5, 300])
    return {
        "events": [
            {"eventId": some_uuid(number * 1000 + i), "eventType": "t", "payload": {"n": i}}
            for i in range(size)
        ]
    }


def _accepted(client: httpx.Client, port: int, request: dict[str, Any]) -> bool:
    try:
        answer = client.post(f"http://127.0.0.1:{port}/api/v1/events", json=request)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and answer.json()["accepted"] == len(request["events"])
