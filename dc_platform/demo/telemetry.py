"""This host's own telemetry as a live source: processor, memory, disk, network, each second."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from dc_platform.demo.sender import Sender

SOURCE = "host-telemetry"
_SECONDS = 1.0


def sample(data_dir: Path) -> list[dict[str, Any]]:
    """One reading of everything, as events of the same moment."""
    at = time.time_ns() // 1_000_000
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(data_dir))
    network = psutil.net_io_counters()
    readings: list[tuple[str, dict[str, Any]]] = [
        ("cpu", {"core": i, "percent": p}) for i, p in enumerate(psutil.cpu_percent(percpu=True))
    ]
    readings += [
        ("memory", {"used_bytes": memory.used, "percent": memory.percent}),
        ("disk", {"used_bytes": disk.used, "percent": disk.percent}),
        ("network", {"sent_bytes": network.bytes_sent, "received_bytes": network.bytes_recv}),
        ("load", dict(zip(("m1", "m5", "m15"), psutil.getloadavg(), strict=True))),
    ]
    return [
        {
            "eventId": str(uuid.uuid4()),
            "timestamp": at,
            "eventType": kind,
            "payload": payload,
        }
        for kind, payload in readings
    ]


def follow(
    sender: Sender,
    data_dir: Path,
    stop: threading.Event,
    *,
    progress: Callable[[int], None] = lambda accepted: None,
) -> None:
    """Send a reading each second until told to stop."""
    psutil.cpu_percent(percpu=True)
    while not stop.wait(_SECONDS):
        progress(sender.send(sample(data_dir)))
