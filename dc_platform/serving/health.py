"""Health of the platform as a whole (design 4.4): ingestion, processing, storage."""

from __future__ import annotations

import shutil
from typing import Any

from dc_platform.serving.tail import Tail

# Lag in events from which on processing counts as degraded: two batches of landing.
_LAG = 400_000
_DISK_WARN, _DISK_FULL = 0.85, 0.95


def health(tail: Tail, lake_uri: str) -> dict[str, Any]:
    """Components with their figures: events per second, events not landed, disk used."""
    view = tail.view
    usage = shutil.disk_usage(lake_uri)
    used = usage.used / usage.total
    lag = view.tail_rows if view else 0
    ingestion = "healthy" if tail.kafka_answers else "unhealthy"
    processing = "healthy" if view and view.complete and lag < _LAG else "degraded"
    storage = "healthy" if used < _DISK_WARN else "degraded" if used < _DISK_FULL else "unhealthy"
    parts = (ingestion, processing, storage)
    status = next((s for s in ("unhealthy", "degraded") if s in parts), "healthy")
    return {
        "status": status,
        "components": {
            "ingestion": {"status": ingestion, "throughput": round(tail.events_per_second)},
            "processing": {"status": processing, "lag": lag},
            "storage": {"status": storage, "used": f"{used:.0%}"},
        },
    }
