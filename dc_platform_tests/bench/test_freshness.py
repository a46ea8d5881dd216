"""The freshness bench's own arithmetic, on a stack that is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dc_platform.bench import freshness
from dc_platform.bench.stack import Stack


class Feeder:
    """Has had a thousand events acknowledged each second of a clock that is set by hand."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Feeder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def acknowledged(self) -> int:
        return round(Clock.now * 1_000)


class Clock:
    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now

    @classmethod
    def sleep(cls, seconds: float) -> None:
        cls.now += seconds


def test_the_rate_of_the_flood_is_that_of_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(*_: object) -> dict[str, float]:
        Clock.sleep(30)
        return {}

    monkeypatch.setattr(freshness, "time", Clock)
    monkeypatch.setattr(freshness, "_Feeder", Feeder)
    monkeypatch.setattr(freshness, "_probe", probe)
    stack: Any = SimpleNamespace(memory_mb=lambda _: 1.0, serving_state=lambda: {"complete": True})
    found = freshness._flood(cast(Stack, stack), 1, 1_000, lambda _: None)
    assert found["flooded_events"] == 60_000
    assert found["flooded_seconds"] == 60
    assert found["flooded_events_per_second"] == 1_000
