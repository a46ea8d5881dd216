"""Kafka is about to delete what has not landed: an alarm before, a row in `ops.gaps` after, and
landing goes on.
"""

from __future__ import annotations

import time
from typing import Any

import dagster as dg
import pytest

from dc_platform.broker.client import ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.retention import held
from dc_platform.contracts.ops_tables import GAPS
from dc_platform.orchestration import retention
from dc_platform.orchestration.retention import RetentionGuard
from dc_platform_tests.faults.scene import Scene, event, ids
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.stack.harness import free_ports, wait_for

pytestmark = pytest.mark.kafka

HOUR = 3_600_000
ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN


@pytest.fixture
def guard(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> RetentionGuard:
    monkeypatch.setattr(retention, "settings", scene.settings)
    return RetentionGuard()


def examples(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    found = evaluation["metadata"]["examples"].data
    assert evaluation["metadata"]["findings"] == len(found)
    return list(found)


def begins(scene: Scene) -> dict[int, int]:
    info = ensure_topic(scene.bootstrap, scene.topic, partitions=2, replication=1)
    reader = reader_for(scene.bootstrap, info)
    try:
        return reader.beginning_offsets()
    finally:
        reader.close()


def test_the_alarm_comes_before_the_loss_and_landing_goes_on_after_it(
    scene: Scene, guard: RetentionGuard
) -> None:
    scene.configure(retention_ms=str(10 * HOUR))
    landed, lost, later = ids(5), ids(7), ids(3)
    scene.send(landed)
    scene.land()
    begun = time.time_ns() // 1_000_000
    # What has landed is no risk, however old it becomes.
    assert guard.evaluate(begun + 100 * HOUR)["passed"]
    scene.send(lost)
    for hours, passed, severity, left in (
        (4, True, WARN, 6),
        (6, False, WARN, 4),
        (9, False, ERROR, 1),
    ):
        found = guard.evaluate(begun + hours * HOUR)
        assert (found["passed"], found["severity"]) == (passed, severity)
        assert found["metadata"]["hours left (0)"] == pytest.approx(left, abs=0.2)
        assert found["metadata"]["hours left (1)"] == "no limit"
        assert [(e["partition"], e["unlanded"], e["lost"]) for e in examples(found)] == (
            [] if passed else [(0, 7, 0)]
        )
    # Kafka deletes it: by its own clock, so the retention becomes short.
    scene.configure(retention_ms="1")
    wait_for(lambda: begins(scene)[0] == len(landed + lost))
    scene.configure(retention_ms=str(10 * HOUR))
    found = guard.evaluate()
    assert (found["passed"], found["severity"]) == (False, ERROR)
    assert [(e["partition"], e["lost"]) for e in examples(found)] == [(0, 7)]
    scene.send(later)
    scene.land()
    gaps = read_table(scene.lake, GAPS, "kafka_partition, from_offset, to_offset, why")
    assert gaps == [(0, 5, 12, "expired")]
    scene.assert_exact(landed + later, gaps=1)
    assert guard.evaluate()["passed"]


def test_bytes_run_out_as_time_does(scene: Scene, guard: RetentionGuard) -> None:
    producer = scene.producer()
    for event_id in ids(30):
        producer.send(scene.topic, event(event_id, text="x" * 1000), partition=1).get(timeout=30)
    producer.close()
    info = ensure_topic(scene.bootstrap, scene.topic, partitions=2, replication=1)
    size = held(scene.bootstrap, info, {})[1].bytes
    assert size > 30_000
    for share, severity in ((0.6, WARN), (0.9, ERROR)):
        scene.configure(retention_bytes=str(int(size / share)))
        found = guard.evaluate()
        assert (found["passed"], found["severity"]) == (False, severity)
        assert [(e["partition"], e["used"]) for e in examples(found)] == [
            (1, pytest.approx(share, abs=0.01))
        ]
    scene.land()
    assert guard.evaluate()["passed"]


def test_an_open_transaction_grows_old_too_and_markers_do_not(
    scene: Scene, guard: RetentionGuard
) -> None:
    producer = scene.producer(transactional_id=scene.topic)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(scene.topic, event(*ids(1)), partition=0).get(timeout=30)
    later = time.time_ns() // 1_000_000 + 8 * 24 * HOUR
    assert [e["partition"] for e in examples(guard.evaluate(later))] == [0]
    producer.abort_transaction()
    producer.close()
    scene.land()
    assert guard.evaluate(later)["passed"]


def test_a_compacted_topic_keeps_no_promise(scene: Scene, guard: RetentionGuard) -> None:
    scene.configure(cleanup_policy="compact,delete")
    found = guard.evaluate()
    assert (found["passed"], found["severity"]) == (False, ERROR)
    assert "cleanup.policy=delete" in examples(found)[0]["why"]


def test_without_kafka_it_says_that_it_cannot_tell(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    away = scene.settings(kafka_bootstrap=f"127.0.0.1:{port}")
    monkeypatch.setattr(retention, "settings", lambda: away)
    found = RetentionGuard().evaluate()
    assert (found["passed"], found["severity"]) == (False, WARN)
    assert "cannot tell what Kafka will delete" in examples(found)[0]["why"]


def test_a_partition_that_does_not_answer_is_not_taken_for_young(
    scene: Scene, guard: RetentionGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.send(ids(5))
    # It is asked, and the time is up before it answers.
    monkeypatch.setattr("dc_platform.broker.retention._PATIENCE_SECONDS", 0.0)
    found = guard.evaluate()
    assert (found["passed"], found["severity"]) == (False, WARN)
    assert found["metadata"]["hours left (0)"] == "unknown"
    assert found["metadata"]["hours left (1)"] == "no limit"
    ((partition, why),) = [(e["partition"], e["why"]) for e in examples(found)]
    assert partition == 0
    assert "cannot tell" in why


def test_a_topic_that_nobody_has_made_yet_is_in_no_danger(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "settings", lambda: scene.settings(topic="not-yet"))
    assert RetentionGuard().evaluate()["passed"]
