"""48,626 flights of the first three days of 2001, from flights.parquet (source and licence: NOTICE).

Their event times are the departures, in 2001; their ids are their row numbers, so a replay that is
started again adds nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dc_platform.demo.sender import Sender

FILE = Path(__file__).with_name("flights.parquet")
SOURCE = "flights"
_BATCH = 500
# The design of the field: a flight counts as delayed from 15 minutes on.
_DELAYED_MINUTES = 15


def events() -> Iterator[dict[str, Any]]:
    """All flights as events, in the order of their departure."""
    number = 0
    for batch in pq.ParquetFile(FILE).iter_batches(batch_size=2_000):
        for row in batch.to_pylist():
            number += 1
            departed = row["departed"].replace(tzinfo=UTC)
            delayed = row["delay"] >= _DELAYED_MINUTES
            yield {
                "eventId": f"flight-{number}",
                "timestamp": int(departed.timestamp() * 1000),
                "eventType": "flight_delayed" if delayed else "flight_on_time",
                "payload": {
                    "origin": row["origin"],
                    "destination": row["destination"],
                    "delay": row["delay"],
                    "distance": row["distance"],
                },
                "metadata": {"tags": {"dataset": "bts-on-time"}},
            }


def count() -> int:
    """Number of flights."""
    return int(pq.ParquetFile(FILE).metadata.num_rows)


def replay(
    sender: Sender,
    stop: threading.Event,
    *,
    per_second: int,
    progress: Callable[[int], None] = lambda accepted: None,
) -> None:
    """Send all flights at about so many per second."""
    batch: list[dict[str, Any]] = []
    for event in events():
        batch.append(event)
        if len(batch) == _BATCH:
            progress(sender.send(batch))
            batch = []
            if stop.wait(_BATCH / per_second):
                return
    if batch and not stop.is_set():
        progress(sender.send(batch))
