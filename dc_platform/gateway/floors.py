"""The retention floors as this gateway knows them: in memory, some seconds behind the registry.

What comes in by then and is older than a floor that was just raised is deleted with the next run.
"""

from __future__ import annotations

import asyncio
import logging

from dc_platform.contracts.floors import NO_FLOORS, Floors
from dc_platform.errors import StoreUnavailableError
from dc_platform.registry.retention import Retention

log = logging.getLogger(__name__)


class FloorWatch:
    """All floors, read anew when the registry changes. A registry that is away changes nothing."""

    def __init__(self, retention: Retention, *, refresh_seconds: float) -> None:
        self._retention = retention
        self._refresh_seconds = refresh_seconds
        self._version = -1
        self._floors = NO_FLOORS

    def __call__(self) -> Floors:
        """The floors."""
        return self._floors

    def refresh(self) -> None:
        """Read them anew when anything changed."""
        version = self._retention.version()
        if version != self._version:
            self._floors = self._retention.floors()
            self._version = version

    async def follow(self) -> None:
        """Refresh for ever."""
        while True:
            try:
                await asyncio.to_thread(self.refresh)
            except StoreUnavailableError as error:
                log.warning("%s", error)
            await asyncio.sleep(self._refresh_seconds)
