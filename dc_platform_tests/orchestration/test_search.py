"""The search index in Dagster: the asset builds it, the sensor starts a run when there is need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test

from dc_platform.orchestration import search
from dc_platform.settings import settings
from dc_platform_tests.helpers.search import TEXTS, Changing


@pytest.fixture
def changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Changing]:
    monkeypatch.setenv("DCP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DCP_SEARCH_BEHIND_ROWS", "5")
    monkeypatch.setattr(search, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(search, "_IDLE_SECONDS", 0.5)
    for cached in (settings, search._builder):
        cached.cache_clear()
    yield Changing(tmp_path)
    for cached in (settings, search._builder):
        cached.cache_clear()


def test_the_asset_builds_and_says_what_it_has(
    changing: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing.land(changing.rows(TEXTS))
    builds = []
    real = search.Builder.build

    def build(builder: search.Builder) -> search.Built:
        builds.append(1)
        if len(builds) == 2:
            raise search.CommitConflictError("another build of the index is at work")
        done = real(builder)
        if len(builds) == 1:
            changing.land(changing.rows(TEXTS))
        return done

    monkeypatch.setattr(search.Builder, "build", build)
    result = dg.materialize([search.search_events])
    [event] = result.asset_materializations_for_node("search__events")
    metadata = {name: value.value for name, value in event.metadata.items()}
    assert metadata["dagster/row_count"] == 2 * len(TEXTS)
    assert metadata["silver version"] == changing.table.version
    # What came while the run stayed was built in the same run, once the other build was done.
    assert (metadata["builds"], metadata["events added"]) == (2, 2 * len(TEXTS))
    assert metadata["bytes"] > 1000


def test_the_sensor_starts_a_run_when_there_is_need(changing: Changing) -> None:
    def started(instance: dg.DagsterInstance) -> int:
        result = search.search_sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(result, dg.SensorResult)
        assert result.run_requests or result.skip_reason
        return len(result.run_requests or [])

    with instance_for_test() as instance:
        assert started(instance) == 0
        changing.land(changing.rows(TEXTS))
        assert started(instance) == 1
        with changing.builder().home.building():
            assert started(instance) == 0
        changing.builder().build()
        assert started(instance) == 0
        changing.land(changing.rows(TEXTS[:4]))
        assert started(instance) == 0
        changing.delete(next(iter(changing.files)), {next(iter(changing.live))})
        assert started(instance) == 1
        # One that was created a moment ago is on its way.
        instance.add_run(dg.DagsterRun(job_name=search.search_job.name, run_id="1"))
        assert started(instance) == 0
