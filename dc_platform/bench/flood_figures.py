"""What a flood shows, from two logs: what Kafka acknowledged when, and what silver committed when.

Nothing is asked of the running stack for it: the age of every event at the moment of its commit, and
the lag at every moment, follow from the offsets. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEP_SECONDS = 0.25


@dataclass(frozen=True)
class Commit:
    """When a version of silver was in the log, and partition → the offset up to which it holds."""

    at: float
    ends: Mapping[int, int]


@dataclass(frozen=True)
class Window:
    """A part of the run, [start, end)."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


def landed_at(partitions: Any, offsets: Any, commits: Sequence[Commit]) -> Floats:
    """For each record, when silver had it; infinite when it never had."""
    found = np.full(len(offsets), np.inf)
    for partition in np.unique(partitions):
        mine = [(c.ends[partition], c.at) for c in commits if partition in c.ends]
        mine.sort()
        ends = np.array([end for end, _ in mine], np.int64)
        # An offset may be committed again by a rebuild: what counts is the first time.
        times = np.append(np.array([at for _, at in mine], np.float64), np.inf)
        rows = partitions == partition
        found[rows] = times[np.searchsorted(ends, offsets[rows], side="right")]
    return found


class Flow:
    """Acknowledged records (`flood_load.ACKS`), and when each landed."""

    def __init__(self, acks: pa.Table, commits: Sequence[Commit]) -> None:
        self._events = acks["events"].to_numpy()
        self._appended = acks["appended_at"].to_numpy()
        self._landed = landed_at(acks["partition"].to_numpy(), acks["offset"].to_numpy(), commits)

    def delays_ms(self, window: Window) -> Floats:
        """Milliseconds from Kafka's append to silver's commit of the records appended in the window.

        Blocks are of one size, so a record stands for its events.
        """
        mine = (self._appended >= window.start) & (self._appended < window.end)
        return np.asarray((self._landed[mine] - self._appended[mine]) * 1000, np.float64)

    def offered_per_second(self, window: Window) -> float:
        """Events that Kafka took, per second."""
        return self._between(self._appended, window) / window.seconds

    def landed_per_second(self, window: Window) -> float:
        """Events that silver committed, per second."""
        return self._between(self._landed, window) / window.seconds

    def _between(self, times: Floats, window: Window) -> float:
        return float(self._events[(times >= window.start) & (times < window.end)].sum())

    def lag(self, window: Window, *, records: bool = False) -> tuple[Floats, Floats]:
        """(times, events or records that Kafka had and silver had not), four times a second."""
        times = np.arange(window.start, window.end, _STEP_SECONDS)
        weights = np.ones_like(self._events) if records else self._events
        arrived = _cumulated(self._appended, weights, times)
        return times, arrived - _cumulated(self._landed, weights, times)

    def lag_slope(self, window: Window, *, records: bool = False) -> float:
        """Growth of the lag per second: the slope of the line through all of the window."""
        times, lag = self.lag(window, records=records)
        return float(np.polyfit(times - times[0], lag, 1)[0])

    def recovered_at(self, since: float, until: float, lag: float) -> float | None:
        """When the lag was at most `lag` for the first time after `since`."""
        times, found = self.lag(Window(since, until))
        low = np.flatnonzero(found <= lag)
        return float(times[low[0]]) if len(low) else None


def _cumulated(at: Floats, weights: Any, times: Floats) -> Floats:
    order = np.argsort(at)
    sums = np.concatenate([[0.0], np.cumsum(weights[order])])
    return np.asarray(sums[np.searchsorted(at[order], times, side="right")], np.float64)


def grows(slope: float, window: Window, rate: float) -> bool:
    """Whether the lag grew by more than a second's worth of events within the window.

    Commits by size or by time make a saw of it, so a slope is never exactly 0.
    """
    return slope * window.seconds > rate
