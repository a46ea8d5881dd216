"""The sampling rate in force of each source (design 6.4), for the header of each block.

A fixed rate is what its rule says. An adaptive one follows from the events that the source sent to this
gateway in the last seconds, as the largest 1/2^k that keeps them within the target: so an event that is
kept stands for a whole number of them, and the rate changes rarely. It falls at once, and rises only
when there is room to spare. Each gateway sees its own share: of N gateways each keeps the target.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping

from dc_platform.contracts.sampling import OTHERS, Rates
from dc_platform.registry.sampling import SamplingRule

# Seconds over which a source's events are counted.
WINDOW = 5
# A rate rises only where the events would fill so much of the target.
_ROOM = 0.8


class Sampler:
    """Measures sources that have an adaptive rule. All calls on one event loop but `update`, which
    replaces what is read.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rules: Mapping[str, SamplingRule] = {}
        self._meters: dict[str, _Meter] = {}

    def update(self, rules: Mapping[str, SamplingRule]) -> None:
        """Take the rules of all sources; from any thread."""
        self._rules = rules

    def rates(self, counts: Mapping[str, int]) -> Rates:
        """The rates for a block with so many events of these sources, which are counted. Without
        rules that leave something out there are none.
        """
        rules = self._rules
        if not rules:
            return {}
        found = {}
        for source_id, events in counts.items():
            rule = rules.get(source_id)
            if rule is None:
                continue
            of_source = {**rule.event_types, OTHERS: self._rate(source_id, rule, events)}
            if any(rate < 1 for rate in of_source.values()):
                found[source_id] = of_source
        return found

    def _rate(self, source_id: str, rule: SamplingRule, events: int) -> float:
        if rule.target is None:
            return rule.rate or 1.0
        meter = self._meters.get(source_id)
        if meter is None or meter.rule != rule:
            meter = self._meters[source_id] = _Meter(rule)
        return meter.rate(events, self._clock())


class _Meter:
    """Events of one source by second, and the rate in force."""

    def __init__(self, rule: SamplingRule) -> None:
        self.rule = rule
        self._rate = 1.0
        self._seconds: deque[tuple[int, int]] = deque()
        self._second = -1
        self._count = 0

    def rate(self, events: int, now: float) -> float:
        """The rate in force; it is computed anew once per second."""
        second = math.floor(now)
        if second != self._second:
            self._seconds.append((self._second, self._count))
            while self._seconds and self._seconds[0][0] < second - WINDOW:
                self._seconds.popleft()
            self._second, self._count = second, 0
            self._rate = self._adapted(sum(count for _, count in self._seconds) / WINDOW)
        self._count += events
        return self._rate

    def _adapted(self, per_second: float) -> float:
        target = self.rule.target or math.inf
        wanted = self._power(per_second, target)
        if wanted > self._rate:
            # Were it to rise as soon as it may, it would go up and down at the border.
            return max(self._rate, self._power(per_second, target * _ROOM))
        return wanted

    def _power(self, per_second: float, target: float) -> float:
        """The largest 1/2^k at which so many events are within the target, not below the floor."""
        if per_second <= target:
            return 1.0
        halvings = math.ceil(math.log2(per_second / target))
        return max(0.5**halvings, self.rule.floor)
