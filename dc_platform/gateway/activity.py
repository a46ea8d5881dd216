"""What each source sends: rate, last time, and whether most of it is rejected. For the registry."""

from __future__ import annotations

import asyncio
import logging
import time

from dc_platform.errors import StoreUnavailableError
from dc_platform.registry.sources import Activity, Sources

log = logging.getLogger(__name__)

_REPORT_SECONDS = 2.0


class ActivityLog:
    """Counts accepted and rejected events per source since the last report."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._counts: dict[str, list[int]] = {}
        self._active: set[str] = set()
        self._since = time.monotonic()
        self.accepted = 0
        self.rejected = 0

    def saw(self, source_id: str, *, accepted: int, rejected: int) -> None:
        """Count the outcome of one request."""
        count = self._counts.setdefault(source_id, [0, 0, 0])
        count[0] += accepted
        count[1] += rejected
        count[2] = time.time_ns() // 1_000_000
        self.accepted += accepted
        self.rejected += rejected

    async def follow(self) -> None:
        """Report to the registry for ever."""
        last_seen: dict[str, int] = {}
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            seen = self._take(last_seen)
            if not seen:
                continue
            try:
                await asyncio.to_thread(self._sources.report, seen)
            except StoreUnavailableError as error:
                log.warning("%s", error)

    def _take(self, last_seen: dict[str, int]) -> dict[str, Activity]:
        counts, self._counts = self._counts, {}
        now = time.monotonic()
        seconds, self._since = max(now - self._since, 1e-3), now
        seen = {
            source: Activity(at, (accepted + rejected) / seconds, rejected > accepted)
            for source, (accepted, rejected, at) in counts.items()
        }
        # A source that fell silent gets a rate of zero once.
        for source in self._active - set(seen):
            seen[source] = Activity(last_seen.pop(source), 0.0, False)
        self._active = set(counts)
        last_seen.update({source: activity.last_seen_ms for source, activity in seen.items()})
        return seen
