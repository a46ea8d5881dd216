"""One tenant's figures over a window, from the counts of a moment.

Everything follows from two times of each event, receipt and landing: the rate is how many were received
in a bucket; the lag at an instant is how many had been received and had not landed; the latency is the
time between. So the past needs no sampling: it is the same whether somebody looked or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.serving.monitor import Moment
from dc_platform.serving.rollup import BINS, BINS_PER_DOUBLING, BUCKET_MS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BUCKET_SECONDS = BUCKET_MS / 1000
# The newest bucket counts when it has been over for so long: the tail is a little behind.
_SETTLE_MS = 1_000
# `current` is the mean of the newest ten seconds.
_CURRENT_BUCKETS = 2
_CURRENT_LATENCY_BUCKETS = 12
_NEVER = np.iinfo(np.int64).max // 2


@dataclass(frozen=True)
class Window:
    """`count` buckets from the bucket `first` on, seen in steps of `step` buckets."""

    first: int
    count: int
    step: int

    @classmethod
    def of(cls, from_ms: int, to_ms: int, at_ms: int, *, points: int) -> Window:
        """The whole buckets of [from, to) that are over, in `points` steps at most."""
        first = -(-from_ms // BUCKET_MS)
        last = min(to_ms, at_ms - _SETTLE_MS) // BUCKET_MS
        count = max(0, last - first)
        step = max(1, -(-count // points))
        # Whole steps, the newest one included.
        whole = count // step * step
        return cls(first + count - whole, whole, step)

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.count * BUCKET_SECONDS

    @property
    def step_ms(self) -> int:
        """Length of a step."""
        return self.step * BUCKET_MS

    @property
    def timestamps(self) -> list[int]:
        """Where each step begins, in epoch milliseconds."""
        starts = range(self.first, self.first + self.count, self.step)
        return [start * BUCKET_MS for start in starts]

    def sums(self, per_bucket: Floats) -> Floats:
        """Sums per step."""
        sums: Floats = per_bucket.reshape(-1, self.step).sum(axis=1)
        return sums

    def rates(self, per_bucket: Floats) -> Floats:
        """Per second, for each step."""
        return self.sums(per_bucket) / (self.step * BUCKET_SECONDS)

    def counted(self, buckets: Ints, events: Ints) -> Floats:
        """Events per bucket of the window."""
        inside = (buckets >= self.first) & (buckets < self.first + self.count)
        return _counts(buckets[inside] - self.first, events[inside], self.count)


@dataclass(frozen=True)
class Flow:
    """Columns of the events of one tenant; `processed` is far away for what has not landed."""

    received: Ints
    processed: Ints
    bins: Ints
    events: Ints
    newest_ms: int | None
    landed_ms: int | None

    @classmethod
    def of(cls, moment: Moment, tenant_id: str) -> Flow:
        """The tenant's columns of a moment."""
        table = of_tenant(moment.events("flow"), tenant_id)
        landed = table.filter(pc.is_valid(table["processed"]))
        return cls(
            received=_ints(table["received"]),
            processed=_ints(pc.fill_null(table["processed"].cast(pa.int64()), _NEVER)),
            bins=_ints(pc.fill_null(table["bin"].cast(pa.int64()), 0)),
            events=_ints(table["events"]),
            newest_ms=pc.max(landed["newest"]).as_py(),
            landed_ms=pc.max(landed["landed"]).as_py(),
        )

    @property
    def waiting(self) -> int:
        """Events that have not landed."""
        return int(self.events[self.processed == _NEVER].sum())


class Measures:
    """Rates in events per second, lag in events, latencies in milliseconds."""

    def __init__(self, moment: Moment, tenant_id: str, window: Window) -> None:
        self.window = window
        self._moment = moment
        self._tenant_id = tenant_id
        self.flow = Flow.of(moment, tenant_id)

    @cached_property
    def received(self) -> Floats:
        """Accepted events per bucket of their receipt."""
        return self.window.counted(self.flow.received, self.flow.events)

    @cached_property
    def rejects(self) -> pa.Table:
        """Rejected events of the window: key (the reason), received, events."""
        return self._inside(self._moment.rejects())

    @cached_property
    def rejected(self) -> Floats:
        """Rejected events per bucket of their receipt."""
        table = self.rejects
        return self.window.counted(_ints(table["received"]), _ints(table["events"]))

    @cached_property
    def lag(self) -> Floats:
        """At the end of each bucket: events that were received and had not landed."""
        flow, size = self.flow, self.window.count
        begun = np.maximum(flow.received - self.window.first, 0)
        ended = flow.processed - self.window.first
        begun, ended, events = (column[ended >= 0] for column in (begun, ended, flow.events))
        came = _counts(begun[begun < size], events[begun < size], size)
        went = _counts(ended[ended < size], events[ended < size], size)
        lag: Floats = np.cumsum(came - went)
        return lag

    def latencies(self, buckets: int) -> Floats:
        """Events per `buckets` buckets of their landing (rows) and bin of latency (columns)."""
        flow, rows = self.flow, self.window.count // buckets
        first = self.window.first + self.window.count - rows * buckets
        at = (flow.processed - first) // buckets
        inside = (at >= 0) & (at < rows)
        cells = at[inside] * BINS + flow.bins[inside]
        return _counts(cells, flow.events[inside], rows * BINS).reshape(rows, BINS)

    def keys(self, name: str) -> pa.Table:
        """`sources` or `types` of the window: key (null: the rest), received, events."""
        return self._inside(self._moment.events(name))

    def _inside(self, table: pa.Table) -> pa.Table:
        first, last = self.window.first, self.window.first + self.window.count
        table = of_tenant(table, self._tenant_id)
        inside = pc.and_(
            pc.greater_equal(table["received"], first), pc.less(table["received"], last)
        )
        table = table.filter(inside)
        # Each file has a dictionary of its own, which Arrow does not group by.
        key = table["key"].cast(pa.string())
        return table.set_column(table.column_names.index("key"), "key", key)

    # --- the metrics of design 4.4 ---

    def metric(self, name: str) -> dict[str, float]:
        """`current`, `avg` and `max` of one of METRICS."""
        if name == "processing_lag":
            current = float(self.flow.waiting)
            lag = np.append(self.lag, current)
            return _figures(current, lag.mean(), lag.max())
        if name == "processing_latency":
            return self._latency()
        counts = self.received if name == "ingestion_rate" else self.rejected
        if not len(counts):
            return _figures(0.0, 0.0, 0.0)
        rates = counts / BUCKET_SECONDS
        return _figures(rates[-_CURRENT_BUCKETS:].mean(), rates.mean(), rates.max())

    def _latency(self) -> dict[str, float]:
        whole = self.latencies(max(1, self.window.count)).sum(axis=0)
        size = min(_CURRENT_LATENCY_BUCKETS, max(1, self.window.count))
        newest = self.latencies(size)
        middles = bin_ms(np.arange(BINS))
        used = np.flatnonzero(whole)
        return _figures(
            _mean(newest[-1] if len(newest) else whole, middles),
            _mean(whole, middles),
            float(middles[used[-1]]) if len(used) else 0.0,
        )

    def series(self, name: str) -> list[float | None]:
        """One value per step: rates and latencies are means, the lag is the largest."""
        window = self.window
        if name == "processing_lag":
            return rounded(self.lag.reshape(-1, window.step).max(axis=1))
        if name == "processing_latency":
            middles = bin_ms(np.arange(BINS))
            rows = self.latencies(window.step)
            return [_mean(row, middles) if row.any() else None for row in rows]
        counts = self.received if name == "ingestion_rate" else self.rejected
        return rounded(window.rates(counts))


METRICS = ("ingestion_rate", "processing_lag", "rejection_rate", "processing_latency")


def of_tenant(table: pa.Table, tenant_id: str) -> pa.Table:
    """The rows of one tenant."""
    return table.filter(pc.equal(table["tenant_id"].cast(pa.string()), tenant_id))


def bin_ms(bins: npt.NDArray[Any]) -> Floats:
    """The latency of a bin: no further than 5 % from all that it holds."""
    middles: Floats = 2.0 ** ((bins + 0.5) / BINS_PER_DOUBLING)
    return middles


def quantile(counts: Floats, share: float) -> float | None:
    """The latency that `share` of the events are within; None without events."""
    total = np.cumsum(counts)
    if not len(total) or not total[-1]:
        return None
    place = int(np.searchsorted(total, share * total[-1]))
    return round(float(bin_ms(np.array(place))), 1)


def rounded(values: Floats) -> list[float | None]:
    """For JSON."""
    found: list[float | None] = np.round(values, 4).tolist()
    return found


def _counts(places: Ints, events: Ints, size: int) -> Floats:
    """Events by their place, 0 to size - 1."""
    return np.bincount(places, weights=events, minlength=size).astype(np.float64)


def _mean(counts: Floats, middles: Floats) -> float:
    total = counts.sum()
    return round(float((counts * middles).sum() / total), 1) if total else 0.0


def _figures(current: float, average: float, maximum: float) -> dict[str, float]:
    figures = {"current": current, "avg": average, "max": maximum}
    return {name: round(float(value), 4) for name, value in figures.items()}


def _ints(column: pa.ChunkedArray) -> Ints:
    found: Ints = column.to_numpy().astype(np.int64)
    return found
