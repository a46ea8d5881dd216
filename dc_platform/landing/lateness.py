"""Whether landing has more to do than it can: then files wait to be merged."""

from __future__ import annotations

import time
from collections.abc import Callable

# From a batch's oldest record in Kafka to its commit.
_LATE_SECONDS = 5.0
# A reader that is the bottleneck gives nothing for as long as a batch takes it: 1 to 2 s of a flood.
_QUIET_SECONDS = 5.0


class Lateness:
    """Behind from a batch that was late until one was in time, or none came for a while.

    `clock`: epoch seconds, as Kafka's times; `ticks`: seconds that never go back.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._ticks = ticks
        # A run that begins does not know yet.
        self._behind_until = ticks() + _QUIET_SECONDS

    def landed(self, oldest_ms: int | None) -> None:
        """A batch was committed; `oldest_ms` of its oldest record, None when it had no records."""
        if oldest_ms is None:
            return
        late = self._clock() - oldest_ms / 1000 > _LATE_SECONDS
        self._behind_until = self._ticks() + _QUIET_SECONDS if late else float("-inf")

    @property
    def behind(self) -> bool:
        """Whether nothing that can wait is to be begun now."""
        return self._ticks() < self._behind_until
