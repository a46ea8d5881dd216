"""What the processes of a stack use while a bench runs: peak memory and CPU seconds, by part."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

import psutil

_SAMPLE_SECONDS = 0.5


class Usage:
    """Samples the parts twice a second, in a thread, while it is open.

    A part that is started again, or handed over, goes on under its name.
    """

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._seen: dict[tuple[str, int], float] = {}
        self._peaks: dict[str, float] = {}
        self._cpu: dict[str, float] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Usage:
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def since_last(self, prefix: str) -> dict[str, float]:
        """`PREFIX_PART_peak_rss_mb` and `…_cpu_seconds` since the last call; no prefix: `PART_…`."""
        self.sample()
        with self._lock:
            result: dict[str, float] = {}
            for part, peak in sorted(self._peaks.items()):
                name = f"{prefix}_{part}" if prefix else part
                result[f"{name}_peak_rss_mb"] = round(peak)
                result[f"{name}_cpu_seconds"] = round(self._cpu.get(part, 0.0), 1)
            self._peaks, self._cpu = {}, {}
        return result

    def sample(self) -> None:
        """Look at every part once."""
        pids = self._pids()
        with self._lock:
            for part, pid in pids.items():
                with suppress(psutil.Error):
                    self._add(part, pid, psutil.Process(pid))

    def _add(self, part: str, pid: int, process: psutil.Process) -> None:
        times = process.cpu_times()
        used = times.user + times.system
        # What a process used before it was first seen was not of this bench.
        before = self._seen.get((part, pid), used)
        self._seen[(part, pid)] = used
        self._cpu[part] = self._cpu.get(part, 0.0) + used - before
        rss = process.memory_info().rss / 2**20
        self._peaks[part] = max(self._peaks.get(part, 0.0), rss)

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.sample()
