"""Files whose merge failed are left alone for a while, ever longer, and the others go on.

Else one file that cannot be read ends all compaction: its job is the first again at every look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dc_platform.landing.compaction_plan import LiveFile

# A store that was away for a moment costs no more than this; a file that is damaged for good is tried
# 24 times a day, so one that was put right is merged within the hour.
_FIRST_SECONDS = 10.0
_LONGEST_SECONDS = 3600.0


class _Pause(NamedTuple):
    until: float
    seconds: float


class FailedFiles:
    """Pauses by the path of a file. `clock` never goes back; seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pauses: dict[str, _Pause] = {}

    def add(self, paths: Iterable[str]) -> None:
        """The merge of these failed, again or for the first time."""
        now = self._clock()
        # Most were merged since: the table's files of a year must not be held here.
        self._pauses = {
            path: pause
            for path, pause in self._pauses.items()
            if now < pause.until + _LONGEST_SECONDS
        }
        for path in paths:
            before = self._pauses.get(path)
            seconds = _FIRST_SECONDS if before is None else 2 * before.seconds
            seconds = min(seconds, _LONGEST_SECONDS)
            self._pauses[path] = _Pause(now + seconds, seconds)

    def rest_of(self, files: Iterable[LiveFile]) -> list[LiveFile]:
        """Those of `files` that may be merged now."""
        now = self._clock()
        paused = {path for path, pause in self._pauses.items() if now < pause.until}
        return [file for file in files if file.path not in paused]
