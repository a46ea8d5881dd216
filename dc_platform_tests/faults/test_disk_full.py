"""The disk is full, for real: a clear error, nothing half written that a table refers to, nothing left
that would fill it again, and landing goes on when there is room.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from dc_platform.contracts.ops_tables import LANDING_BORDER
from dc_platform.contracts.tables import TABLES
from dc_platform.lake.table import LakeTable
from dc_platform.landing.lander import Ended, Lander
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.faults.disks import SmallDisk, small_disk
from dc_platform_tests.faults.scene import Scene, Sender, ids
from dc_platform_tests.helpers.landing import in_thread
from dc_platform_tests.helpers.tail import Tailed
from dc_platform_tests.stack.harness import wait_for

pytestmark = pytest.mark.kafka


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 32) as mounted:
        yield mounted


@pytest.fixture
def scene(broker: LocalKafka, disk: SmallDisk) -> Scene:
    return Scene.on(broker.bootstrap, disk.directory)


def orphans(scene: Scene) -> set[str]:
    """Data files that no table refers to; but for those of the border, which is replaced each time."""
    tables = [spec for spec in TABLES if spec is not LANDING_BORDER]
    found = set()
    for spec in tables:
        found |= {str(path) for path in Path(scene.lake.uri_of(spec)).rglob("part-*.parquet")}
        found -= set(LakeTable(scene.lake, spec).snapshot().paths)
    return found


def failures(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if "No space left" in r.getMessage()]


def test_landing_waits_for_room(
    scene: Scene, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    first, second = ids(300), ids(2000)
    scene.send(first)
    scene.land()
    disk.fill()
    scene.send(second, partition=1)
    lander = Lander(scene.settings(), sources=None, owner="test")
    thread, result = in_thread(partial(lander.run, threading.Event(), until_caught_up=True))
    wait_for(lambda: len(failures(caplog)) >= 3)
    assert thread.is_alive()
    assert any("free space" in message for message in failures(caplog))
    scene.assert_exact(first)
    disk.free()
    thread.join(60)
    assert result == [Ended.CAUGHT_UP]
    scene.assert_exact(first + second)
    assert orphans(scene) == set()


def test_a_tail_that_cannot_spill_says_so_and_goes_on_when_events_have_landed(
    broker: LocalKafka, disk: SmallDisk
) -> None:
    tailed = Tailed(disk.directory, broker.bootstrap, tail_memory_mb=1)
    try:
        tailed.write(0)
        tailed.lander().run(threading.Event(), until_caught_up=True)
        tailed.start()
        disk.fill()
        written = 1
        while tailed.seen().complete:
            tailed.write(*range(written, written + 10), size=20_000)
            written += 10
            assert written < 1000
        assert 1 <= tailed.seen().distinct == tailed.seen().count <= written
        disk.free()
        tailed.land()
        wait_for(lambda: tailed.seen().complete)
        assert tailed.seen().distinct == tailed.seen().count == written
    finally:
        tailed.close()


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_disk_that_is_full_again_and_again(scene: Scene, disk: SmallDisk) -> None:
    """It has room for none, some or all files of a landing: each of them fails at some time."""
    rng = Random(3)
    with (
        Sender(scene, pause=0.004) as sender,
        scene.landing(environment={"DCP_LANDING_FRESHNESS_SECONDS": "0.2"}) as lander,
    ):
        wait_for(lambda: scene.rows() > 0)
        for _ in range(15):
            disk.fill(leave=rng.choice((0, 4096, 8192, 12_288, 20_480, 40_960, 65_536)))
            time.sleep(rng.uniform(0.5, 2.5))
            disk.free()
            version = scene.version()
            wait_for(lambda version=version: scene.version() > version)
        assert lander.poll() is None, scene.log_of("land").read_text()
        sent = sender.end()
        # In order: one that is killed leaves the files that it is at.
        lander.terminate()
        assert lander.wait(60) == 0
    done = scene.finish()
    assert done.returncode == 0, done.stderr
    scene.assert_exact(sent)
    # What a commit was tried with and the log does not have is left to vacuum; it is whole.
    log = scene.log_of("land").read_text()
    assert log.count("No space left") > 15
    left = orphans(scene)
    assert len(left) <= log.count("Retrying") - log.count("StoreUnavailableError: writing")
    assert all(pq.read_table(path).num_rows for path in left)
