"""Writers of one table commit in turn instead of racing for its next version.

A turn protects nothing: the commit does, as a compare-and-swap. It saves the losers' work: eight
writers without it try each commit three times. So nobody depends on it: a writer that waits for
longer than any commit takes goes on without, and asks no more for a while (the one whose turn it is
may be frozen). A process that dies gives its turn up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dc_platform.contracts.tables import TableSpec
from dc_platform.lake.store import Lake

log = logging.getLogger(__name__)

# Eight writers of 50 ms each, on a machine that is slow five times over.
_PATIENCE_SECONDS = 2.0
_WITHOUT_SECONDS = 10.0
_POLL_SECONDS = 0.002


class Turns:
    """The turns of one writer at one table of a lake on a local disk. Not thread-safe."""

    def __init__(self, lake: Lake, spec: TableSpec) -> None:
        # An underscore: no reader of Delta looks into it, and vacuum leaves it alone.
        path = Path(lake.uri_of(spec)) / "_turn.lock"
        self._lock = FileLock(path, timeout=_PATIENCE_SECONDS, poll_interval=_POLL_SECONDS)
        self._ask_at = float("-inf")

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """This writer's turn, for the length of the block; False when it goes on without."""
        has = self._take()
        try:
            yield has
        finally:
            if has:
                self._lock.release()

    def _take(self) -> bool:
        if time.monotonic() < self._ask_at:
            return False
        try:
            self._lock.acquire()
        except (Timeout, OSError) as error:
            self._ask_at = time.monotonic() + _WITHOUT_SECONDS
            log.warning("committing out of turn: %s", error)
            return False
        return True
