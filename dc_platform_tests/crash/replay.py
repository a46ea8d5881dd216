"""A replay of quarantined events that is killed at a point, and started again until it ends."""

from __future__ import annotations

import signal
from collections import Counter

from dc_platform.broker.client import RecordWriter
from dc_platform.contracts import blocks
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.rejects import Reject, encode_rejects
from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.balance import balance, pin
from dc_platform.landing.acks import land_acks
from dc_platform.points import Point
from dc_platform.settings import Settings
from dc_platform_tests.crash.scene import Scene
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.records import SOURCE

_PROCESS = ["dc_platform_tests.crash.process"]
# Two pieces of a replay, and some blocks each.
_EVENTS = 6_000
_PER_BLOCK = 1_000


def killed_replay(scene: Scene, seed: int, point: Point) -> None:
    """Events that would pass now are in quarantine; the replay dies in its first or second piece."""
    _send_rejects(scene)
    scene.land()
    replay = [*_PROCESS, "replay", "all"]
    scene.expect(replay, -signal.SIGKILL, {"DCP_CRASH_AT": f"{point}:{1 + seed % 2}"})
    if seed == 2:
        # What was sent has landed when the next one looks.
        scene.land()
    scene.expect(replay, 0)
    scene.land()
    scene.expect(replay, 0)
    scene.land()
    scene.events = _EVENTS
    landed = Counter(row[0] for row in read_table(scene.lake, SILVER_EVENTS, "event_id"))
    assert landed == Counter(some_uuid(n) for n in range(_EVENTS))
    assert len(read_table(scene.lake, SILVER_QUARANTINE)) == _EVENTS
    settings = Settings(
        kafka_bootstrap=scene.environment["DCP_KAFKA_BOOTSTRAP"], topic=scene.info.name
    )
    assert land_acks(settings, scene.lake).doubts == ()
    [row] = balance(pin(scene.lake)).to_pylist()
    assert (row["missing"], row["examples"]) == (0, None)
    assert (row["landed"], row["rejected"]) == (_EVENTS, _EVENTS)


def _send_rejects(scene: Scene) -> None:
    writer = RecordWriter(scene.environment["DCP_KAFKA_BOOTSTRAP"], scene.info.name)
    for first in range(0, _EVENTS, _PER_BLOCK):
        events = [
            b'{"eventId":"%s","eventType":"t","payload":{}}' % some_uuid(n).encode()
            for n in range(first, first + _PER_BLOCK)
        ]
        rejects = [
            Reject.of(index, Reason.EVENT_TOO_LARGE, "the limit was lower", event)
            for index, event in enumerate(events)
        ]
        headers = blocks.block_headers(
            blocks.BlockId("gateway-1", "b00t", first),
            content_type=blocks.ARROW,
            verdict=blocks.REJECTED,
            tenant=blocks.DEFAULT_TENANT,
            counts={SOURCE: len(rejects)},
        )
        value = encode_rejects(
            rejects, source_id=SOURCE, request_hash=f"{first:064x}", received_at_ms=NOW
        )
        writer.write(value, partition=first // _PER_BLOCK % 2, headers=headers)
    writer.close()
