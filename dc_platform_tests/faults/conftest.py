"""One broker for all faults that it survives: each test has a topic of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.faults.scene import QuickKafka, Scene
from dc_platform_tests.stack.harness import free_ports


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker whose retention works twice a second."""
    with QuickKafka(tmp_path_factory.mktemp("kafka"), *free_ports(2)) as started:
        yield started


@pytest.fixture
def scene(broker: LocalKafka, tmp_path: Path) -> Scene:
    return Scene.on(broker.bootstrap, tmp_path)
