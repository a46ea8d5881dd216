"""How near Kafka is to deleting what has not landed. Pure.

Kafka deletes whole segments, a segment when its newest record is older than the topic's limit, or
when what comes after it is more than the limit of bytes. So what is measured here, the oldest record
by its own age and all bytes from it on, is reached a little before anything is deleted.
"""

from __future__ import annotations

from typing import NamedTuple

from dc_platform.broker.retention import Held, Retention
from dc_platform.contracts.identity import HOUR_MS


class Risk(NamedTuple):
    """A partition's share of the retention that is used up by what has not landed: 0 is nothing,
    from 1 on Kafka may delete it. `hours_left` is None when nothing will be deleted as things are.
    """

    partition: int
    unlanded: int
    used: float
    hours_left: float | None
    lost: int


def risk_of(partition: int, border: int, held: Held, retention: Retention, now_ms: int) -> Risk:
    """The risk of a partition whose next offset to land is `border`. Offsets stand for records."""
    lost = max(0, held.begin - border)
    unlanded = max(0, held.end - max(border, held.begin))
    if held.oldest_ms is None:
        return Risk(partition, unlanded, 1.0 if lost else 0.0, 0.0 if lost else None, lost)
    age_ms = max(0, now_ms - held.oldest_ms)
    # Of its own bytes Kafka tells only the sum; records are taken to be of one size.
    unlanded_bytes = held.bytes * unlanded / max(1, held.end - held.begin)
    used = [0.0]
    left_ms: list[float] = []
    if retention.ms is not None:
        used.append(age_ms / max(1, retention.ms))
        left_ms.append(max(0, retention.ms - age_ms))
    if retention.bytes is not None:
        used.append(unlanded_bytes / max(1, retention.bytes))
        # At the rate of the time since the oldest came.
        rate = unlanded_bytes / max(1, age_ms)
        left_ms.append(max(0.0, retention.bytes - unlanded_bytes) / max(rate, 1e-9))
    if lost:
        return Risk(partition, unlanded, max(1.0, *used), 0.0, lost)
    hours = min(left_ms) / HOUR_MS if left_ms else None
    return Risk(partition, unlanded, max(used), hours, 0)
