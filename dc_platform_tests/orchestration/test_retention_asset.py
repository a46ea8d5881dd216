"""`ops/retention` in Dagster: it deletes, moves and says so; the sensor finds what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dc_platform.lake.store import Lake
from dc_platform.orchestration.tiers import deletion_sensor
from dc_platform.orchestration.tiers import retention as retention_asset
from dc_platform.registry.retention import Kind, Retention
from dc_platform.settings import settings
from dc_platform_tests.helpers.landing import silver
from dc_platform_tests.helpers.retention import ids, policies, registry
from dc_platform_tests.retention.test_deletion import land, records


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as made:
        yield made


@pytest.fixture
def retention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Retention]:
    monkeypatch.setenv("DCP_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DCP_TIER_HOT_DAYS", "0.001")
    settings.cache_clear()
    land(Lake(settings().lake), records())
    yield registry(tmp_path)
    settings.cache_clear()


def requests(instance: dg.DagsterInstance) -> list[str]:
    """What the sensor asks for."""
    with dg.build_sensor_context(instance=instance) as context:
        data = deletion_sensor.evaluate_tick(context)
    return [str(request.run_key) for request in data.run_requests or ()]


def test_the_asset_deletes_and_tells(instance: dg.DagsterInstance, retention: Retention) -> None:
    policies(retention, {"*": 30, "audit": 365})
    assert requests(instance) == []
    result = dg.materialize([retention_asset], instance=instance)
    metadata = result.asset_materializations_for_node("ops__retention")[0].metadata
    # Its files wait for readers; until then there is nothing to do.
    assert requests(instance) == []
    assert result.success
    assert set(silver(Lake(settings().lake))) == ids([3, 4, 5, 6])
    assert metadata["rows deleted"].value == 9
    assert metadata["deletions pending"].value
    assert metadata["hot bytes"].value == 0
    assert metadata["warm bytes"].value > 0
    assert "| silver.events | warm | 4 |" in str(metadata["tables"].value)
    assert str(metadata["plot"].value).startswith("![tiers](data:image/png")


def test_the_sensor_starts_a_run_for_what_was_asked(
    instance: dg.DagsterInstance, retention: Retention
) -> None:
    asked = retention.request(
        Kind.PERSON, "default", {"field": "n", "value": "5", "ends": {}}, who="me", at_once=True
    )
    [key] = requests(instance)
    assert key.startswith(asked.deletion_id)
    assert dg.materialize([retention_asset], instance=instance).success
    assert requests(instance) == []
    assert not ids([5]) & set(silver(Lake(settings().lake)))
