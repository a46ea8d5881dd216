"""Asks the parts, beside the supervisor's loop, whether they do their work.

An answer may take seconds; the loop that starts parts again must not wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from dc_platform.errors import PlatformError
from dc_platform.registry.database import Database
from dc_platform.registry.leases import Leases
from dc_platform.stack.parts import Part

_STARTING_SECONDS = 0.3
_READY_SECONDS = 10.0
_LEASE_SECONDS = 1.0


class Observer:
    """A thread with its latest answers. Answers are about a process id, so an old one cannot speak
    for a part that was started again."""

    def __init__(
        self,
        parts: Mapping[str, Part],
        pids: Callable[[], Mapping[str, int]],
        registry: Database | None = None,
    ) -> None:
        self._parts = parts
        self._pids = pids
        self._leases = Leases(registry) if registry else None
        self._answers: dict[str, tuple[int, bool]] = {}
        self._asked: dict[str, float] = {}
        self._seen: dict[str, tuple[int, float]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        # Landing slot → process id of its run.
        self.landing: dict[int, int] = {}

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        self._thread.join(timeout=10)

    def answer(self, name: str, pid: int) -> bool | None:
        """Whether the part in this process does its work; None: not asked yet."""
        asked, ready = self._answers.get(name, (0, False))
        return ready if asked == pid else None

    def _run(self) -> None:
        next_lease = 0.0
        while not self._stopped.wait(_STARTING_SECONDS):
            for name, pid in dict(self._pids()).items():
                if self._is_due(name, pid):
                    self._ask(name, pid)
            if self._leases and time.monotonic() >= next_lease:
                next_lease = time.monotonic() + _LEASE_SECONDS
                self.landing = self._landing(self._leases)

    def _is_due(self, name: str, pid: int) -> bool:
        now = time.monotonic()
        seen, since = self._seen.get(name, (0, now))
        if seen != pid:
            self._seen[name] = (pid, since := now)
        if now - since < self._parts[name].settle:
            return False
        if self.answer(name, pid) is not True:
            return True
        return now - self._asked[name] >= _READY_SECONDS

    def _ask(self, name: str, pid: int) -> None:
        self._answers[name] = (pid, self._parts[name].is_ready())
        self._asked[name] = time.monotonic()

    @staticmethod
    def _landing(leases: Leases) -> dict[int, int]:
        try:
            found = leases.landing()
        except PlatformError:
            return {}
        return {slot: lease.pid for slot, lease in found.items() if lease.alive and lease.pid}
