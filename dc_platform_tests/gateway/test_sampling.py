"""The rate in force: fixed, or by what is measured; it falls at once and rises with room to spare."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dc_platform.gateway.sampling import WINDOW, Sampler
from dc_platform.registry.sampling import SamplingRule


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sampler(rule: SamplingRule) -> tuple[Sampler, Clock]:
    clock = Clock()
    made = Sampler(clock=clock)
    made.update({"s": rule})
    return made, clock


def send(made: Sampler, clock: Clock, per_second: int, seconds: int) -> list[float]:
    """A steady stream in ten blocks a second; the rate in each second."""
    rates = []
    for _ in range(seconds):
        for _ in range(10):
            rate = made.rates({"s": per_second // 10}).get("s", {}).get("", 1.0)
            clock.now += 0.1
        rates.append(rate)
    return rates


def test_a_fixed_rate_is_in_force_from_the_first_block() -> None:
    made, _ = sampler(SamplingRule(rate=0.1, event_types={"rare": 1}))
    assert made.rates({"s": 5, "other": 5}) == {"s": {"rare": 1.0, "": 0.1}}
    assert made.rates({"other": 5}) == {}
    made.update({"s": SamplingRule(rate=1)})
    assert made.rates({"s": 5}) == {}


def test_a_flood_is_thinned_to_the_target_and_comes_back_when_it_ends() -> None:
    made, clock = sampler(SamplingRule(target=100))
    assert set(send(made, clock, 90, 10)) == {1.0}
    flood = send(made, clock, 1000, 20)
    assert flood == sorted(flood, reverse=True)
    assert flood[WINDOW + 1 :] == [1 / 16] * (20 - WINDOW - 1)
    after = send(made, clock, 50, 20)
    assert after == sorted(after)
    assert after[-1] == 1.0


def test_at_the_border_the_rate_stays() -> None:
    made, clock = sampler(SamplingRule(target=100))
    send(made, clock, 110, 10)
    for _ in range(5):
        assert set(send(made, clock, 90, 4)) == {0.5}
        assert set(send(made, clock, 110, 4)) == {0.5}


def test_there_is_a_floor() -> None:
    made, clock = sampler(SamplingRule(target=1, floor=0.25))
    assert send(made, clock, 10_000, 10)[-1] == 0.25


@given(st.lists(st.integers(0, 5000), min_size=8, max_size=30), st.integers(1, 2000))
def test_what_is_kept_of_a_steady_second_is_within_the_target(
    loads: list[int], target: int
) -> None:
    made, clock = sampler(SamplingRule(target=target))
    for load in loads:
        send(made, clock, load, 1)
    steady = loads[-1] // 10 * 10
    rate = send(made, clock, steady, WINDOW + 2)[-1]
    assert steady * rate <= max(target, steady * 0.001)
    assert rate == 1.0 or (1 / rate).is_integer() or rate == 0.001


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"rate": 0},
        {"rate": 1.1},
        {"rate": 0.5, "targetEventsPerSecond": 5},
        {"targetEventsPerSecond": 0},
        {"rate": 0.5, "eventTypes": {"t": 0}},
        {"rate": 0.5, "eventTypes": {"": 0.5}},
        {"rate": 0.5, "more": 1},
    ],
)
def test_a_rule_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SamplingRule.model_validate(wrong)
