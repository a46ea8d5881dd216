"""Transactions leave offsets without a record: landing passes them, and comes to the end."""

from __future__ import annotations

import pytest

from dc_platform.landing.lander import Lander
from dc_platform_tests.faults.scene import Scene, event, ids

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("last", ["committed", "aborted"])
def test_a_partition_that_ends_in_a_transaction_is_landed_to_its_end(
    scene: Scene, last: str
) -> None:
    producer = scene.producer(transactional_id=scene.topic)
    producer.init_transactions()
    expected = []
    for round_ in range(6):
        plain = ids(3)
        scene.send(plain, partition=round_ % 2)
        expected += plain
        inside = ids(4)
        producer.begin_transaction()
        for event_id in inside:
            producer.send(scene.topic, event(event_id), partition=round_ % 2)
        if (round_ % 3 == 0) if round_ < 5 else last == "committed":
            producer.commit_transaction()
            expected += inside
        else:
            producer.abort_transaction()
    producer.close()
    # Ends, because the offsets of markers and of aborted records are passed as well.
    scene.land()
    scene.assert_exact(expected)
    lander = Lander(scene.settings(), sources=None, owner="later")
    assert lander.lag() == {0: 0, 1: 0}
    lander.close()
    assert scene.land().commits == 0


def test_a_partition_with_nothing_but_aborted_transactions(scene: Scene) -> None:
    producer = scene.producer(transactional_id=scene.topic)
    producer.init_transactions()
    for _ in range(2):
        producer.begin_transaction()
        producer.send(scene.topic, event(*ids(1)), partition=1)
        producer.abort_transaction()
    producer.close()
    scene.land()
    scene.assert_exact([])
    assert scene.land().commits == 0
