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
        self._active: dict[str, Activity] = {}
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
        while True:
            await asyncio.sleep(_REPORT_SECONDS)
            seen = self._take()
            if not seen:
                continue
            try:
                await asyncio.to_thread(self._sources.report, seen)
            except StoreUnavailableError as error:
                log.warning("%s", error)

    def _take(self) -> dict[str, Activity]:
        counts, self._counts = self._counts, {}
        now = time.monotonic()
        seconds, self._since = max(now - self._since, 1e-3), now
        active = {
            source: Activity(at, (accepted + rejected) / seconds, rejected > accepted)
            for source, (accepted, rejected, at) in counts.items()
        }
        # A source that fell silent gets a rate of zero once; what it last sent stays as it was.
        silent = {
            source: last._replace(rate=0.0)
            for source, last in self._active.items()
            if source not in active
        }
        self._active = active
        return {**active, **silent}
