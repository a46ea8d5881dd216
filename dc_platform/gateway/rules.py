"""What is asked of each source's events, in memory; and the sources that a rule has failed.

A gateway judges with the newest version that it knows of, and stamps it. A source that fails has failed
here at once, and everywhere when the registry has it; landing reports it again, if this process dies.
"""

from __future__ import annotations

import asyncio
import logging
import threading

from dc_platform.contracts.schema_check import Rules
from dc_platform.errors import StoreUnavailableError
from dc_platform.registry.rules import NEWEST, Checkers, RuleHistory
from dc_platform.registry.sources import Sources

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


class RuleBook:
    """The rules of all sources; `refresh` is called when the registry has changed."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._checkers = Checkers()
        self._refreshing = threading.Lock()
        self._history = RuleHistory(self._checkers, {}, {}, {})
        self._known: dict[str, Rules | None] = {}
        self._failing: dict[str, tuple[int, str]] = {}
        self._failed = asyncio.Event()

    def refresh(self) -> None:
        """Read the rules anew; raises StoreUnavailableError."""
        with self._refreshing:
            self._history = self._sources.rules(self._checkers)
            self._known = {}

    def of(self, source_id: str) -> Rules | None:
        """What is asked of a source's events now; None: nothing."""
        failing = self._failing.get(source_id)
        if failing is not None:
            return Rules({}, f"source {source_id} has failed: {failing[1]}")
        known = self._known
        if source_id not in known:
            known[source_id] = self._history.at(source_id, NEWEST)
        return known[source_id]

    def fail(self, source_id: str, message: str, *, at_ms: int) -> None:
        """Take no more events of a source as valid, from now on; for an event of that time."""
        self._failing.setdefault(source_id, (at_ms, message))
        self._failed.set()

    async def follow(self) -> None:
        """Tell the registry of failures, for ever."""
        while True:
            await self._failed.wait()
            self._failed.clear()
            try:
                await asyncio.to_thread(self._report)
            except StoreUnavailableError as error:
                log.warning("%s", error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._failed.set()

    def _report(self) -> None:
        reported = list(self._failing.items())
        for source_id, (at_ms, message) in reported:
            self._sources.fail(source_id, message, at_ms=at_ms)
        self.refresh()
        for source_id, _ in reported:
            self._failing.pop(source_id, None)
