"""Definitions of metrics: their versions, and what changed since a version of the registry."""

from __future__ import annotations

import threading

import pytest

from dc_platform.contracts.metrics import AggregationType, Definition
from dc_platform.registry.database import Database
from dc_platform.registry.metrics import MetricExistsError, Metrics
from dc_platform.registry.sources import Sources, SourceType

SUM = Definition("m", AggregationType.SUM, "a.b", "view", ("country", "metadata.tags.x"))
P99 = Definition("m", AggregationType.P99, "a.b")


def test_a_metric_from_its_creation_to_its_end(database: Database) -> None:
    metrics = Metrics(database)
    made = metrics.create(SUM)
    assert (made.version, made.definition) == (1, SUM)
    assert metrics.get("m") == made
    assert metrics.list() == [made]
    with pytest.raises(MetricExistsError, match="m already"):
        metrics.create(P99)
    changed = metrics.change(P99)
    assert changed is not None
    assert (changed.metric_id, changed.version, changed.definition) == (made.metric_id, 2, P99)
    assert metrics.change(P99) == changed
    assert metrics.delete("m")
    assert not metrics.delete("m")
    assert (metrics.get("m"), metrics.change(SUM), metrics.list()) == (None, None, [])
    again = metrics.create(SUM)
    assert again.metric_id != made.metric_id


def test_a_tenant_has_its_own(database: Database) -> None:
    metrics = Metrics(database)
    made = metrics.create(SUM)
    other = metrics.create(SUM, tenant_id="other")
    assert metrics.get("m", tenant_id="other") == other
    assert (metrics.list("default"), metrics.list("other")) == ([made], [other])
    assert metrics.list() == [made, other]
    assert metrics.delete("m", tenant_id="other")
    assert metrics.get("m") == made


def test_what_changed_since_a_version(database: Database) -> None:
    metrics = Metrics(database)
    start = metrics.changed_since(0)
    assert start == (0, [], [])
    made = metrics.create(SUM)
    first = metrics.changed_since(start.version)
    assert (first.changed, first.deleted) == ([made], [])
    # Other changes of the registry are none of a metric.
    Sources(database).create("s", SourceType.SERVER)
    second = metrics.changed_since(first.version)
    assert second.version > first.version
    assert (second.changed, second.deleted) == ([], [])
    metrics.change(P99)
    changed = metrics.change(SUM)
    assert changed is not None
    assert changed.version == 3
    third = metrics.changed_since(second.version)
    assert third.changed == [changed]
    metrics.delete("m")
    last = metrics.changed_since(third.version)
    assert (last.changed, last.deleted) == ([], [made.metric_id])
    assert metrics.changed_since(0).deleted == [made.metric_id]
    assert metrics.changed_since(last.version) == (last.version, [], [])


def test_changes_at_once_have_numbers_of_their_own(database: Database) -> None:
    def run(number: int) -> None:
        metrics = Metrics(database)
        for n in range(5):
            metrics.create(Definition(f"m{number}_{n}", AggregationType.COUNT))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = Metrics(database).list()
    assert len(found) == 20
    assert sorted(metric.changed_at for metric in found) == list(range(1, 21))
    assert database.version() == 20
