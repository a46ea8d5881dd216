"""Fixtures and settings of all tests. Helpers that are no fixtures stand in `helpers/`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.stack.harness import free_ports

# Every run tries the same examples; `pytest --hypothesis-profile search` looks for new ones.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    database=None,
    phases=set(Phase) - {Phase.explain},
    suppress_health_check=_SLOW,
)
settings.register_profile("search", deadline=None, max_examples=2000, suppress_health_check=_SLOW)
settings.load_profile("steady")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker that the tests of a file share: each has a topic of its own."""
    port, controller = free_ports(2)
    with LocalKafka(tmp_path_factory.mktemp("kafka"), port, controller) as broker:
        yield broker
