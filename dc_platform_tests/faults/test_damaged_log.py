"""A record batch is damaged on the broker's own disk, and no replica has it whole: it stands in the way
of its own partition alone, is never passed unseen, and what is behind it lands once it was deleted.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition

from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.faults.scene import Scene, ids
from dc_platform_tests.stack.harness import free_ports, wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def damage(broker: Path, topic: str, sizes: list[int]) -> None:
    """Change a byte in the second of three batches of partition 0."""
    (segment,) = [path for path in broker.rglob(f"{topic}-0/*.log") if path.stat().st_size]
    content = bytearray(segment.read_bytes())
    at = (sizes[0] + sizes[1]) // 2
    content[at] ^= 0xFF
    segment.write_bytes(content)


def test_a_damaged_batch_stands_in_the_way_of_its_own_partition_alone(tmp_path: Path) -> None:
    with LocalKafka(tmp_path / "kafka", *free_ports(2)) as broker:
        scene = Scene.on(broker.bootstrap, tmp_path)
        all_ids = ids(400)
        before, damaged, behind, other = (all_ids[n : n + 100] for n in range(0, 400, 100))
        sizes = []
        for group in (before, damaged, behind):
            # Each of these is a batch of its own.
            scene.send(group)
            sizes.append(sum(p.stat().st_size for p in tmp_path.rglob(f"{scene.topic}-0/*.log")))
        broker.stop()
        damage(tmp_path / "kafka", scene.topic, sizes)
        broker.start()
        broker.wait_ready()
        scene.send(other[:50], partition=1)
        with scene.landing() as lander:
            wait_for(lambda: scene.rows() >= 150)
            scene.send(other[50:], partition=1)
            wait_for(lambda: scene.rows() >= 200)
            assert sorted(scene.ids()) == sorted(before + other)
            wait_for(lambda: "damaged on the broker's disk" in scene.log_of("land").read_text())
            admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
            admin.delete_records({TopicPartition(scene.topic, 0): 200})
            admin.close()
            wait_for(lambda: scene.rows() >= 300)
            lander.terminate()
            assert lander.wait(60) == 0
        scene.assert_exact(before + behind + other, gaps=1)
