"""Fixtures and settings of all tests. Helpers that are no fixtures stand in `helpers/`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from benchmarks import store_commits
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.helpers.trino import SharedTrino
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


@pytest.fixture(scope="session")
def shared_trino(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedTrino]:
    """A Trino that all tests share: `show` gives it a test's lake and topic."""
    # A path as people have them.
    trino = SharedTrino(tmp_path_factory.mktemp("Müllers Trino"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ACCESS_KEY_ID", store_commits.KEY)
        environment.setenv("AWS_SECRET_ACCESS_KEY", store_commits.SECRET)
        trino.start()
    with trino:
        yield trino


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What two workers share out (`make test`): files, or the folders whose tests share a broker.

    All that starts a whole stack is one share, and the first: two stacks side by side would wait for
    the two cores, one beside tests that compute does not.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_share(item)))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _share(item) != "stacks")


def _share(item: pytest.Item) -> str:
    folder = item.path.parent.name
    if folder == "e2e" or item.get_closest_marker("stack") or item.get_closest_marker("trino"):
        return "stacks"
    return folder if folder in ("broker", "faults", "registry") else str(item.path)
