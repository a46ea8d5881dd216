"""What the dashboard shows, in one answer: made once per moment, tenant and window."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow.compute as pc

from dc_platform.contracts.reasons import REMEDIES, Reason
from dc_platform.serving.measures import Measures, Window, of_tenant, quantile, rounded
from dc_platform.serving.monitor import Moment

_POINTS = 180
_TOP = 8
# Lines of the chart by source; the others are one more.
_LINES = 5

NameOf = Callable[[str], str | None]


class Span(StrEnum):
    """The windows that can be asked for."""

    QUARTER = "15m"
    HOUR = "1h"
    DAY = "24h"

    @property
    def ms(self) -> int:
        """Its length."""
        minutes = {Span.QUARTER: 15, Span.HOUR: 60, Span.DAY: 24 * 60}
        return minutes[self] * 60_000


def overview(moment: Moment, tenant_id: str, span: Span, name_of: NameOf) -> dict[str, Any]:
    """Figures and series of a tenant up to now. `name_of` gives a source's name."""
    from_ms = moment.at_ms - span.ms
    window = Window.of(from_ms, moment.at_ms, moment.at_ms, points=_POINTS)
    measures = Measures(moment, tenant_id, window)
    sources = Ranking(measures, "sources")
    content: dict[str, Any] = {
        "at": moment.at_ms,
        "window": span.value,
        "silverVersion": moment.silver_version,
        "complete": True,
        "step": window.step_ms,
        "timestamps": window.timestamps,
        "received": _received(measures, sources, name_of),
        "rejected": _rejected(measures),
        "lag": _lag(measures, moment, tenant_id),
        "latency": _latency(measures),
        "sources": [{**row, "name": name_of(row["sourceId"])} for row in sources.rows("sourceId")],
        "eventTypes": Ranking(measures, "types").rows("eventType"),
        **moment.completeness,
    }
    if moment.since_ms > from_ms:
        # Older files are being counted: the figures hold from then on.
        content["countedSince"] = moment.since_ms
    return content


def _received(measures: Measures, sources: Ranking, name_of: NameOf) -> dict[str, Any]:
    window = measures.window
    total = window.rates(measures.received)
    lines = []
    rest = total.copy()
    for key in sources.keys[:_LINES]:
        values = window.rates(sources.series(key))
        rest = rest - values
        lines.append({"sourceId": key, "name": name_of(key), "values": rounded(values)})
    content = {
        "events": int(measures.received.sum()),
        **measures.metric("ingestion_rate"),
        "series": rounded(total),
        "bySource": lines,
    }
    if np.any(rest > 1e-6):
        content["others"] = rounded(np.maximum(rest, 0))
    return content


def _rejected(measures: Measures) -> dict[str, Any]:
    sums = measures.rejects.group_by("key").aggregate([("events", "sum")])
    reasons = sorted(sums.to_pylist(), key=lambda row: (-row["events_sum"], row["key"]))
    return {
        "events": int(measures.rejected.sum()),
        **measures.metric("rejection_rate"),
        "series": rounded(measures.window.rates(measures.rejected)),
        "byReason": [
            {"reason": row["key"], "events": row["events_sum"], "remedy": _remedy(row["key"])}
            for row in reasons[:_TOP]
        ],
    }


def _remedy(reason: str) -> str | None:
    return REMEDIES.get(Reason(reason)) if reason in set(Reason) else None


def _lag(measures: Measures, moment: Moment, tenant_id: str) -> dict[str, Any]:
    table = of_tenant(moment.partitions(), tenant_id)
    sums = table.group_by("kafka_partition").aggregate([("events", "sum")])
    waiting = dict(zip(*(sums[name].to_pylist() for name in sums.column_names), strict=True))
    partitions = sorted({*moment.border, *waiting})
    flow = measures.flow
    return {
        **measures.metric("processing_lag"),
        "series": measures.series("processing_lag"),
        "partitions": [{"partition": p, "events": waiting.get(p, 0)} for p in partitions],
        # Of the landed events of the last day: when the newest was received, and when one landed.
        "newestLanded": flow.newest_ms,
        "landedAt": flow.landed_ms,
    }


def _latency(measures: Measures) -> dict[str, Any]:
    window = measures.window
    steps = measures.latencies(window.step)
    whole = steps.sum(axis=0)
    return {
        "p50": quantile(whole, 0.5),
        "p99": quantile(whole, 0.99),
        "seriesP50": [quantile(row, 0.5) for row in steps],
        "seriesP99": [quantile(row, 0.99) for row in steps],
    }


class Ranking:
    """Sources or event types of a window, those with most events first."""

    def __init__(self, measures: Measures, name: str) -> None:
        self._window = measures.window
        self._total = float(measures.received.sum())
        self._table = measures.keys(name)
        sums = self._table.group_by("key").aggregate([("events", "sum")])
        rows = [row for row in sums.to_pylist() if row["key"] is not None]
        rows.sort(key=lambda row: (-row["events_sum"], row["key"]))
        self._rows = rows
        # Some have no count of their own in some file: the counts are lower bounds.
        self.exact = len(rows) == len(sums)

    @property
    def keys(self) -> list[str]:
        """The first of them."""
        return [row["key"] for row in self._rows[:_TOP]]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The first of them with their events and share of all."""
        return [
            {
                name: row["key"],
                "events": row["events_sum"],
                "share": round(row["events_sum"] / self._total, 4),
                **({} if self.exact else {"exact": False}),
            }
            for row in self._rows[:_TOP]
        ]

    def series(self, key: str) -> Any:
        """Events of one of them per bucket."""
        own = self._table.filter(pc.equal(self._table["key"], key))
        return self._window.counted(
            own["received"].to_numpy().astype(np.int64), own["events"].to_numpy().astype(np.int64)
        )
