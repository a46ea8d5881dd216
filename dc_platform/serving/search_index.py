"""The search index as a query sees it: one commit of it, beside one version of silver."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import NamedTuple

from dc_platform.lake.store import Lake
from dc_platform.lake.table import Snapshot
from dc_platform.search.coverage import Comparer, newest_first
from dc_platform.search.home import Home
from dc_platform.search.index import DamagedIndexError, Moment, Reading
from dc_platform.search.state import Coverage, State
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2


class Seen(NamedTuple):
    """`moment` is None while there is no index. `rows_of` has the rows of silver's live files."""

    moment: Moment | None
    coverage: Coverage
    rows_of: dict[str, int]


class SearchIndex:
    """Follows the index that is searched. Thread-safe."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._home = Home(settings.data_dir)
        self._comparer = Comparer(lake)
        self._lock = threading.Lock()
        self._directory: Path | None = None
        self._reading: Reading | None = None
        self._stamp = 0
        self._next_look = 0.0
        self._said = ""
        # The newest commits of the index, the older one first.
        self._moments: list[Moment] = []
        self._seen: tuple[Moment | None, int, Seen] | None = None

    def beside(self, silver: Snapshot) -> Seen:
        """The index and what of this version of silver it covers."""
        with self._lock:
            if time.monotonic() >= self._next_look:
                self._look()
                self._next_look = time.monotonic() + _LOOK_SECONDS
            moment = self._fitting(silver.version)
            if self._seen is not None and self._seen[:2] == (moment, silver.version):
                return self._seen[2]
            state = State("") if moment is None else moment.state
            coverage = self._comparer.compare(state, silver)
            seen = Seen(moment, coverage, newest_first(silver))
            self._seen = (moment, silver.version, seen)
            return seen

    def _fitting(self, version: int) -> Moment | None:
        """An index of a version that the view does not have yet would have merged files in place of
        those that the view has.
        """
        for moment in reversed(self._moments):
            if moment.state.version <= version:
                return moment
        return self._moments[-1] if self._moments else None

    def _look(self) -> None:
        try:
            directory = self._home.current()
            if directory is None:
                self._directory, self._reading, self._moments = None, None, []
                return
            if directory != self._directory:
                self._reading, self._stamp = Reading(directory), 0
                self._directory = directory
            stamp = (directory / "meta.json").stat().st_mtime_ns
            if stamp != self._stamp and self._reading is not None:
                self._moments = [*self._moments[-1:], self._reading.moment()]
                self._stamp = stamp
        except (DamagedIndexError, OSError) as error:
            # What is searched goes on being searched; without an index silver itself is.
            if str(error) != self._said:
                self._said = str(error)
                log.warning("the search index cannot be read: %s", error)
            self._directory = None
