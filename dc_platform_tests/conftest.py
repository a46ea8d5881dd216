"""Fixtures and settings of all tests. Helpers that are no fixtures stand in `helpers/`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

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
        # Nobody needs what it has; some take 30 s for an orderly end.
        broker.kill()


# --- two workers (`make test`) ---

# What one worker runs, and first: two stacks side by side would wait for the two cores, a stack beside
# tests that compute does not.
_STACKS = ("/e2e/", "/stack/test_real_stack.py")
# Folders whose tests share a broker, a database or a browser.
_FOLDERS = ("/broker/", "/dashboard/", "/faults/", "/registry/")


class Shares(LoadScopeScheduling):
    """Shares out files; what has to stay together is one share."""

    def _split_scope(self, nodeid: str) -> str:
        return _share(nodeid)


def _share(nodeid: str) -> str:
    if any(part in nodeid for part in _STACKS):
        return "stacks"
    return next((f for f in _FOLDERS if f in nodeid), nodeid.split("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Shares:
    """pytest-xdist asks for it when it has workers."""
    return Shares(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stacks first, where there are workers."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _share(item.nodeid) != "stacks")
