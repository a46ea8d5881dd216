"""Silver into the index: what is gone leaves it, what is new comes in, and it says what it covers.

Files are read in pieces of some thousand rows, so a build takes the memory of tantivy's buffer and
little more. A commit every million rows bounds what a crash costs; between commits the index says of
each file whether it has it, so it is never wrong, only behind.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.rewrite import UnreadableError, in_pieces
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.points import Point, Reached, armed
from dc_platform.search.analysis import COLUMNS, Analyzer
from dc_platform.search.coverage import Comparer, newest_first
from dc_platform.search.home import Home, dead_in
from dc_platform.search.index import DamagedIndexError, Reading, Writing
from dc_platform.search.state import Missing, State, joined_ranges, pieces_in
from dc_platform.search.work import Work, now_ms
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

_COMMIT_ROWS = 1_000_000
# An index with more documents that were removed than with live ones is made anew, from so many on.
_DEAD_ROWS = 100_000


@dataclass(frozen=True)
class Built:
    """What a build did. `removed` counts pieces, each the rows of a file."""

    version: int
    added: int
    removed: int
    unreadable: tuple[str, ...]
    documents: int
    segments: int
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether it did anything."""
        return self.added + self.removed > 0


@dataclass(frozen=True)
class Behind:
    """An index of so many `documents`, and how far it is behind silver: `rows` that it has not, of
    which the last build could not read some, `gone` pieces that silver has not, and the time since the
    last build, or since somebody looks; `spent`: whether it is to be made anew for what was deleted.
    """

    documents: int
    version: int
    silver_version: int
    rows: int
    unreadable: int
    gone: int
    since_build_ms: int
    spent: bool

    def is_due(self, settings: Settings) -> bool:
        """Whether a build is to begin. What was deleted leaves the index at once."""
        if self.gone or self.spent or self.rows - self.unreadable >= settings.search_behind_rows:
            return True
        return self.rows > 0 and self.since_build_ms > settings.search_behind_minutes * 60_000


class Builder:
    """Builds the index of a lake's silver. One build at a time, over all processes."""

    def __init__(
        self,
        settings: Settings,
        *,
        reached: Reached | None = None,
        commit_rows: int = _COMMIT_ROWS,
    ) -> None:
        self.home = Home(settings.data_dir)
        self._memory_mb = settings.search_memory_mb
        self._forget_ms = settings.search_forget_days * 86_400_000
        self._lake = Lake(settings.lake)
        self._lake.ensure(SILVER_EVENTS)
        self._comparer = Comparer(self._lake)
        self._analyzer = Analyzer()
        self._reached = reached or armed(settings.crash_at)
        self._commit_rows = commit_rows
        self._made_ms = now_ms()

    def behind(self) -> Behind:
        """How far the index is behind silver now."""
        snapshot = LakeTable(self._lake, SILVER_EVENTS).snapshot()
        documents, state, spent = 0, State(""), False
        directory = self.home.current()
        if directory is not None:
            try:
                moment = Reading(directory).moment()
                documents, state = moment.documents, moment.state
                spent = self._is_spent(directory, state)
            except DamagedIndexError as error:
                log.warning("%s", error)
        coverage = self._comparer.compare(state, snapshot)
        return Behind(
            documents=documents,
            version=state.version,
            silver_version=snapshot.version,
            rows=snapshot.rows - sum(file.rows for file in coverage.files.values()),
            unreadable=state.unreadable,
            gone=pieces_in(coverage.gone),
            since_build_ms=now_ms() - max(state.built_ms, self._made_ms),
            spent=spent,
        )

    def build(self, *, anew: bool = False, say: Callable[[int], None] = lambda rows: None) -> Built:
        """Bring the index up to silver's newest version. `anew` makes it from scratch, beside the one
        that there is, and so it is made when it is of little else than what was deleted, or keeps words
        of that for too long. `say` is told the rows that were added.

        Raises CommitConflictError while another build is at work.
        """
        with self.home.building():
            self.home.tidy()
            table = LakeTable(self._lake, SILVER_EVENTS)
            old = self.home.current()
            if old is not None and not anew:
                try:
                    if not self._is_spent(old, Reading(old).moment().state):
                        return self._bring(old, table, say, show=False)
                except DamagedIndexError as error:
                    # It is a copy: silver has all that it had.
                    log.warning("%s; it is built anew", error)
                    old = None
            directory = self.home.new()
            built = self._bring(directory, table, say, show=old is None)
            self.home.put(directory)
            return built

    def _is_spent(self, directory: Path, state: State) -> bool:
        dead = dead_in(directory) if state.removed_ms else 0
        if dead > max(state.rows, _DEAD_ROWS):
            return True
        return dead > 0 and now_ms() - state.removed_ms > self._forget_ms

    def _bring(
        self, directory: Path, table: LakeTable, say: Callable[[int], None], *, show: bool
    ) -> Built:
        begun = time.perf_counter()
        snapshot = table.snapshot()
        writing = Writing(directory, memory_mb=self._memory_mb, empty=State(table.id))
        try:
            if show:
                self.home.put(directory)
            before = writing.moment().state
            if before.table != table.id:
                raise DamagedIndexError("the index is of another table")
            coverage = self._comparer.compare(before, snapshot)
            work = Work(writing, before, coverage.gone)
            if coverage.missing or coverage.gone or before.version < snapshot.version:
                self._add(work, coverage.missing, say)
                self._finish(work, snapshot)
        finally:
            writing.close()
        moment = Reading(directory).moment()
        return Built(
            version=moment.state.version,
            added=work.added,
            removed=pieces_in(coverage.gone),
            unreadable=tuple(work.unreadable),
            documents=moment.documents,
            segments=moment.segments,
            seconds=time.perf_counter() - begun,
        )

    def _add(self, work: Work, missing: Sequence[Missing], say: Callable[[int], None]) -> None:
        root = self._lake.uri_of(SILVER_EVENTS)
        for file in missing:
            piece = work.begin()
            try:
                for batch in in_pieces(root, file.path, COLUMNS):
                    events = pa.Table.from_batches([batch])
                    work.add(piece, self._analyzer.searchable(events), self._analyzer)
            except UnreadableError as error:
                # The other files are searched all the same; the version is not called covered.
                log.error("%s", error)
                work.give_up(piece, file.path)
                continue
            work.end(piece, file.path)
            self._reached(Point.FILE_INDEXED)
            say(work.added)
            if work.since_commit >= self._commit_rows:
                work.commit()

    def _finish(self, work: Work, snapshot: Snapshot) -> None:
        """What was read file by file now lies in the live files of the version."""
        whole = self._comparer.compare(work.state(), snapshot)
        unread = {file.within for file in whole.missing}
        done = {path: file for path, file in whole.files.items() if path not in unread}
        pieces = joined_ranges(r for file in done.values() for r in file.pieces)
        work.files = done | {
            path: file for path, file in work.files.items() if not file.lies_within(pieces)
        }
        if unread:
            rows = newest_first(snapshot)
            work.unreadable_rows = sum(rows[path] for path in unread)
        else:
            work.version = snapshot.version
        self._reached(Point.INDEX_WRITTEN)
        work.commit()
        self._reached(Point.INDEX_COMMITTED)
