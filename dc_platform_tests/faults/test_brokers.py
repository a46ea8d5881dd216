"""The broker ends, in order or not, or its disk is full, while events come in and land: what it has
acknowledged is landed, once, by the same landing process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest

from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.faults.disks import small_disk
from dc_platform_tests.faults.scene import Scene, Sender
from dc_platform_tests.stack.harness import free_ports, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(400)]


@contextmanager
def load(scene: Scene, lander: Popen[bytes], sender: Sender) -> Iterator[None]:
    """Before and after the block events come in and land; at the end all are landed, once."""
    wait_for(lambda: scene.rows() > 0)
    yield
    rows = scene.rows()
    wait_for(lambda: scene.rows() > rows, 120)
    assert lander.poll() is None, scene.log_of("land").read_text()[-3000:]
    sent = sender.end()
    wait_for(lambda: scene.rows() >= len(sent))
    lander.terminate()
    assert lander.wait(60) == 0
    scene.assert_exact(sent)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_broker_that_ends_under_load(tmp_path: Path, end: str) -> None:
    with LocalKafka(tmp_path / "kafka", *free_ports(2)) as broker:
        scene = Scene.on(broker.bootstrap, tmp_path)
        with (
            Sender(scene, pause=0.004) as sender,
            scene.landing() as lander,
            load(scene, lander, sender),
        ):
            for _ in range(2):
                if end == "stop":
                    broker.stop()
                else:
                    broker.kill()
                time.sleep(1)
                broker.start()
                broker.wait_ready()
                rows = scene.rows()
                wait_for(lambda rows=rows: scene.rows() > rows, 120)


def test_a_broker_whose_disk_is_full(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 64) as disk,
        LocalKafka(disk.directory, *free_ports(2), log=tmp_path / "kafka.log") as broker,
    ):
        scene = Scene.on(broker.bootstrap, tmp_path)
        with (
            Sender(scene, pause=0.002) as sender,
            scene.landing() as lander,
            load(scene, lander, sender),
        ):
            disk.fill()
            # Kafka stops when it cannot write; whatever supervises it starts it again.
            wait_for(lambda: broker.pid is None or not broker.answers(), 120)
            broker.kill()
            disk.free()
            broker.start()
            broker.wait_ready()
