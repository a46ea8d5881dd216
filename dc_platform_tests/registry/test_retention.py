"""Policies and floors: one policy per type, floors for ever, deletions until they are done."""

from __future__ import annotations

import pytest

from dc_platform.contracts.floors import EVERY_TYPE
from dc_platform.registry.database import Database, now_ms
from dc_platform.registry.retention import FloorHistory, Kind, Retention

DAY_MS = 86_400_000


@pytest.fixture
def retention(database: Database) -> Retention:
    return Retention(database)


def policy(retention: Retention, data_type: str, days: int, tenant: str = "t") -> str:
    made = retention.set_policy(tenant, data_type, retention_days=days, archive_after_days=1)
    return made.policy_id


def test_a_type_has_one_policy_and_ended_ones_are_history(retention: Retention) -> None:
    first = policy(retention, "click", 10)
    second = policy(retention, "click", 20)
    policy(retention, "click", 5, tenant="other")
    assert [p.policy_id for p in retention.policies("t")] == [second]
    assert retention.policy(first) is None
    assert not retention.end_policy(first)
    assert retention.end_policy(second)
    assert retention.policies("t") == []
    assert len(retention.policies()) == 1


def test_a_floor_comes_from_a_policy_and_never_goes_back(retention: Retention) -> None:
    every = policy(retention, EVERY_TYPE, 30)
    policy(retention, "audit", 365)
    floors = retention.raise_floors()
    now = now_ms()
    short, long = floors.of("t", "click", now), floors.of("t", "audit", now)
    assert short is not None
    assert long is not None
    assert 0 <= now - 30 * DAY_MS - short < 3_600_000 + 60_000
    assert short % 3_600_000 == 0
    assert 334 <= (short - long) / DAY_MS <= 336
    assert floors.of("other", "click", now) is None
    # Longer, and then none at all: what was deleted stays below the floor.
    policy(retention, EVERY_TYPE, 60)
    assert retention.raise_floors().of("t", "click", now) == short
    retention.end_policy(every)
    assert retention.raise_floors().of("t", "click", now_ms()) == short
    # A type that gets a policy of its own later does not get back what it lost.
    policy(retention, "click", 1000)
    assert retention.raise_floors().of("t", "click", now_ms()) == short


def test_a_floor_does_not_count_for_what_came_before_it(retention: Retention) -> None:
    before = now_ms()
    policy(retention, "click", 1)
    retention.raise_floors()
    history = FloorHistory(retention)
    assert history.of("t", "click", before) is None
    assert history.of("t", "click", now_ms()) is not None
    assert history.highest(now_ms()) == history.of("t", "click", now_ms())


def test_a_deletion_is_pending_until_it_is_finished(retention: Retention) -> None:
    predicate = {"field": "userId", "value": "u1"}
    asked = retention.request(Kind.PERSON, "t", predicate, who="me", at_once=True)
    assert retention.pending() == [asked]
    retention.deleted(asked.deletion_id)
    assert [d.deletion_id for d in retention.pending()] == [asked.deletion_id]
    retention.finished(asked.deletion_id, {"field": "userId"})
    assert retention.pending() == []
    done = retention.deletion(asked.deletion_id)
    assert done is not None
    assert done.predicate == {"field": "userId"}
    assert done.finished_ms is not None
