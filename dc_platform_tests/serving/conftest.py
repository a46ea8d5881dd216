"""A served lake that several tests read (two tenants, rows in silver, in the tail and rejected), and
tails on a real broker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.records import block, gateway_line, strange
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.tail import Tailed


def lines(start: int, stop: int, event_type: str = "t") -> list[bytes]:
    return [
        gateway_line(
            b'{"eventId":"%s","eventType":"%s","timestamp":%d,"payload":{"n":%d,"d":%d.5}}'
            % (some_uuid(n).encode(), event_type.encode(), NOW + n * 1000, n, n)
        )
        for n in range(start, stop)
    ]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """8 events in silver and 4 in the tail; one more in each of another tenant; 2 rejected."""
    made = Served(tmp_path_factory.mktemp("served"))
    landed = [
        block(lines(0, 8), 0),
        block(lines(90, 91, "secret"), 1, tenant="other"),
        strange(b"nonsense\nmore", 2),
    ]
    in_memory = [block(lines(8, 10), 3), block(lines(91, 92, "secret"), 4, tenant="other")]
    spilled = [block(lines(10, 12), 5)]
    made.view = view(made.lake, landed, [in_memory])
    on_disk = view(made.lake, [], [spilled], spill=made.tail_directory)
    made.view = type(made.view)(
        made.view.silver, made.view.border, (*made.view.chunks, *on_disk.chunks)
    )
    return made


@pytest.fixture
def tailed(kafka: LocalKafka, tmp_path: Path) -> Iterator[Callable[..., Tailed]]:
    """Makes a topic with a tail that is not started."""
    made: list[Tailed] = []

    def make(**settings: Any) -> Tailed:
        made.append(Tailed(tmp_path, kafka.bootstrap, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()
