"""More identities than the least memory for them holds: every duplicate is found all the same."""

from __future__ import annotations

import threading

import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.table import LakeTable
from dc_platform.landing import known
from dc_platform.landing.lander import Ended, Lander
from dc_platform_tests.faults.scene import SOURCE, Scene
from dc_platform_tests.helpers.events import some_uuid

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(400)]

LEAST_MB = 8
# 7 of 8 MiB hold 7,340,032 identities of one byte. Of 20 bytes they hold 367,001.
BYTES_EACH = 20
EVENTS = 500_000
RECORD = 5_000


def send(scene: Scene, numbers: range, partition: int) -> None:
    """Without timestamps: each batch touches all 256 buckets in which duplicates are looked for."""
    line = f'{{"eventId":"%s","sourceId":"{SOURCE}","eventType":"t","payload":{{}}}}'
    producer = scene.producer(compression_type="lz4")
    for start in range(0, len(numbers), RECORD):
        part = numbers[start : start + RECORD]
        producer.send(
            scene.topic,
            "\n".join(line % some_uuid(n) for n in part).encode(),
            headers=[("content-type", b"application/x-ndjson")],
            partition=partition,
        )
    producer.close()


def test_duplicates_are_found_with_the_least_memory(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_LEAST_BYTES_EACH", BYTES_EACH)
    send(scene, range(EVENTS), 0)
    assert scene.land(identity_memory_mb=LEAST_MB).landed == EVENTS
    # Another partition, another run: every seventh again, and as many new ones.
    again = range(0, EVENTS, 7)
    send(scene, again, 1)
    send(scene, range(EVENTS, EVENTS + len(again)), 1)
    lander = Lander(scene.settings(identity_memory_mb=LEAST_MB), sources=None, owner="test")
    assert lander.run(threading.Event(), until_caught_up=True) is Ended.CAUGHT_UP
    assert (lander.totals.landed, lander.totals.duplicates) == (len(again), len(again))
    assert len(lander._committer._events) * BYTES_EACH <= LEAST_MB * 2**20
    assert LakeTable(scene.lake, SILVER_EVENTS).snapshot().rows == EVENTS + len(again)
    assert len(set(scene.ids())) == EVENTS + len(again)
