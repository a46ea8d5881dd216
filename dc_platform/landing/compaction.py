"""Small files become large ones, in a writer that lands: so the two never conflict.

Reading, sorting and writing go on in a thread of low priority. What is merged is chosen from the
newest snapshot, and the commit is made by the landing thread between two landings: of this writer's
commits none comes in between. Of others (another slot, a backfill) some may: as long as the files that
were merged are live the commit is tried again, in turn with the others'; else the merged file is
thrown away. When landing is behind no merge is begun, and a run that ends drops the one under way.
When there is nothing to merge, silver's files that stay get their indexes of payload fields.

Readers that look at an older version go on reading the files that were replaced: only vacuum
deletes them (`lake/cleaning.py`), after `delta.deletedFileRetentionDuration`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TABLES,
    TableSpec,
)
from dc_platform.errors import PlatformError
from dc_platform.lake.cleaning import entries_kept, expire_log
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.origins import keep_origin, remove_origin
from dc_platform.lake.payload_index import PayloadIndex
from dc_platform.lake.rewrite import Cancellation, UnreadableError, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import RETENTION, LakeTable
from dc_platform.lake.turns import Turns
from dc_platform.landing.compaction_commit import Merged, commit_merged
from dc_platform.landing.compaction_failures import FailedFiles
from dc_platform.landing.compaction_plan import CompactionPolicy, Job, live_files, next_job
from dc_platform.points import Point, Reached, unarmed
from dc_platform.priority import step_back_thread

log = logging.getLogger(__name__)

COMPACTED = (SILVER_EVENTS, BRONZE_EVENTS, SILVER_QUARANTINE)

_LOOK_SECONDS = 1.0
_CLEAN_SECONDS = 15.0
# A third of what landing has beside it.
_NICE = 10
# After so long files that wait to be merged go first.
_INDEX_SECONDS = 2.0
# A merge that was cancelled ends within its batch of rows, or at the next of these.
_AGAIN_SECONDS = 0.1


class Writer(Protocol):
    """What the landing writer lets compaction do, between two landings."""

    def table(self, spec: TableSpec) -> LakeTable:
        """The writer's own table. Compaction moves it to newer versions."""

    def rewritten(self, spec: TableSpec) -> None:
        """Called when the table was moved to commit a merged file, whether that came about or not."""


class Compactor:
    """Compacts the tables of one lake. All but the merging itself happens in the caller's thread."""

    def __init__(
        self,
        lake: Lake,
        policy: CompactionPolicy,
        identity_files: IdentityFiles,
        *,
        log_commits: int,
        keep_seconds: int,
        indexed_fields: Sequence[str] = (),
        clock: Callable[[], float] = time.time,
        reached: Reached = unarmed,
    ) -> None:
        self._lake = lake
        self._policy = policy
        self._identity_files = identity_files
        self._log_commits = log_commits
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._reached = reached
        self._thread = ThreadPoolExecutor(1, "compaction", step_back_thread, (_NICE,))
        self._cancelled = Cancellation()
        self._index = PayloadIndex(lake, indexed_fields)
        # Of silver, at which all files that stay were indexed.
        self._indexed_version = -1
        self._work: Future[Merged | None] | None = None
        self._job: Job | None = None
        self._failed = FailedFiles()
        # The landing writer's own is free between its landings.
        self._turns = Turns(lake, SILVER_EVENTS)
        self._next_look = 0.0
        self._next_clean = 0.0
        self._configured = False
        # Commits made, files merged away.
        self.commits = 0
        self.files = 0

    def step(self, writer: Writer, *, behind: bool) -> None:
        """Commit what is merged and begin what is next; an error is logged and costs the merge.

        Some milliseconds, of a table with thousands of files some ten; where other slots land, up to
        two seconds more for its turn.
        """
        try:
            if self._work is not None and self._work.done():
                self._finish(writer, self._work)
            now = time.monotonic()
            if self._work is None and now >= self._next_look:
                self._next_look = now + _LOOK_SECONDS
                if not self._configured:
                    self._configure(writer)
                self._begin(writer, behind)
        except PlatformError as error:
            log.warning("compaction: %s", error)
        except Exception:
            # No merge is worth the run that lands.
            log.exception("compaction failed")

    def close(self) -> None:
        """Drop what is under way."""
        self._cancelled.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
        while self._work is not None and not self._work.done():
            wait([self._work], _AGAIN_SECONDS)
            self._cancelled.cancel()
        self._thread.shutdown()
        work, self._work = self._work, None
        if work is not None and not work.cancelled() and work.exception() is None:
            merged = work.result()
            if merged is not None:
                self._forget(merged)

    def _finish(self, writer: Writer, work: Future[Merged | None]) -> None:
        job, self._work, self._job = self._job, None, None
        try:
            merged = work.result()
        except Exception as error:
            # Whatever it is: other files, and landing, go on.
            log.warning("compaction: %r", error)
            if job is not None:
                blamed = [error.path] if isinstance(error, UnreadableError) else job.paths
                self._failed.add(blamed)
            return
        if merged is not None:
            self._commit(writer, merged)
        self._next_look = 0.0

    def _begin(self, writer: Writer, behind: bool) -> None:
        if time.monotonic() >= self._next_clean:
            self._next_clean = time.monotonic() + _CLEAN_SECONDS
            self._work = self._thread.submit(self._clean_logs)
            return
        for spec in COMPACTED:
            table = writer.table(spec)
            # While its own slot is quiet nobody else moves it. 0.5 ms.
            table.refresh()
            files = live_files(table.snapshot())
            if behind and len(files) < self._policy.urgent_files:
                continue
            job = next_job(self._failed.rest_of(files), self._clock(), self._policy)
            if job is not None:
                self._job = job
                self._work = self._thread.submit(self._merge, spec, job)
                return
        silver = writer.table(SILVER_EVENTS)
        if self._index.paths and not behind and silver.version != self._indexed_version:
            paths = silver.snapshot().actions["path"].to_pylist()
            self._work = self._thread.submit(self._index_next, paths, silver.version)

    def _configure(self, writer: Writer) -> None:
        for spec in COMPACTED:
            writer.table(spec).refresh()
            writer.table(spec).configure({RETENTION: f"interval {self._keep_seconds} seconds"})
            writer.rewritten(spec)
        self._configured = True

    # --- in the thread ---

    def _merge(self, spec: TableSpec, job: Job) -> Merged:
        begun = time.monotonic()
        file = merge_files(
            self._lake,
            spec,
            job.paths,
            job.files[0].day,
            ordered=job.ordered,
            cancelled=self._cancelled,
        )
        if spec is SILVER_EVENTS:
            self._identity_files.merge(file.path, job.paths)
        else:
            keep_origin(self._lake, spec, file.path, job.paths)
        return Merged(spec, job, file, time.monotonic() - begun)

    def _index_next(self, paths: Sequence[str], version: int) -> None:
        until = time.monotonic() + _INDEX_SECONDS
        for path in self._index.lacking(paths):
            if time.monotonic() > until:
                return
            self._index.build(path, self._cancelled)
        self._indexed_version = version

    def _clean_logs(self) -> None:
        for spec in TABLES:
            expire_log(self._lake, spec, keep=entries_kept(spec, self._log_commits))

    # --- in the landing thread ---

    def _commit(self, writer: Writer, merged: Merged) -> None:
        self._reached(Point.MERGED_WRITTEN)
        table = writer.table(merged.spec)
        try:
            replaced = commit_merged(table, self._turns, merged)
        except Exception:
            # It may be live all the same, or come to be: if not, the file is cleaned away.
            self._failed.add(merged.job.paths)
            raise
        finally:
            writer.rewritten(merged.spec)
        if replaced:
            self.commits += 1
            self.files += len(merged.job.files)
            self._reached(Point.MERGED_COMMITTED)
        else:
            self._failed.add(merged.job.paths)
            self._forget(merged)

    def _forget(self, merged: Merged) -> None:
        self._lake.remove(merged.spec, merged.file.path)
        if merged.spec is SILVER_EVENTS:
            self._identity_files.remove(merged.file.path)
        else:
            remove_origin(self._lake, merged.spec, merged.file.path)
