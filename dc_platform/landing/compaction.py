"""Small files become large ones, in the writer that lands: so neither ever conflicts with the other.

Reading, sorting and writing go on in a thread of low priority. The commit is made by the landing
thread between two landings, from the snapshot that it stands on: of this writer's commits none comes
in between. Of others (another slot, a backfill) one may: then the commit is refused, or a file that
was merged is no longer live, and the merged file is thrown away. Nothing waits for compaction: when
landing is behind none is begun, and a run that ends drops the one under way.

Readers that look at an older version go on reading the files that were replaced: only vacuum
deletes them (`lake/cleaning.py`), after `delta.deletedFileRetentionDuration`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TABLES,
    TableSpec,
)
from dc_platform.errors import CommitConflictError, PlatformError
from dc_platform.lake.cleaning import entries_kept, expire_log
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.origins import keep_origin, remove_origin
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.rewrite import Cancellation, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import RETENTION, LakeTable
from dc_platform.landing.compaction_plan import CompactionPolicy, Job, live_files, next_job
from dc_platform.points import Point, Reached, unarmed

log = logging.getLogger(__name__)

COMPACTED = (SILVER_EVENTS, BRONZE_EVENTS, SILVER_QUARANTINE)

_LOOK_SECONDS = 1.0
_CLEAN_SECONDS = 15.0
_NICE = 10


class Writer(Protocol):
    """What the landing writer lets compaction do, between two landings."""

    def table(self, spec: TableSpec) -> LakeTable:
        """The writer's own table, at the version on which it stands."""

    def rewritten(self, spec: TableSpec) -> None:
        """Called after a commit that changed no data."""


@dataclass(frozen=True)
class _Merged:
    spec: TableSpec
    job: Job
    file: DataFile
    seconds: float


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
        self._thread = ThreadPoolExecutor(1, "compaction", initializer=_step_back)
        self._cancelled = Cancellation()
        self._work: Future[_Merged | None] | None = None
        self._next_look = 0.0
        self._next_clean = 0.0
        self._configured = False
        # Commits made, files merged away.
        self.commits = 0
        self.files = 0

    def step(self, writer: Writer, *, behind: bool) -> None:
        """Commit what is merged and begin what is next. Costs milliseconds; never raises."""
        try:
            if not self._configured:
                self._configure(writer)
            if self._work is not None and self._work.done():
                work, self._work = self._work, None
                merged = work.result()
                if merged is not None:
                    self._commit(writer, merged)
                    self._next_look = 0.0
            now = time.monotonic()
            if self._work is None and now >= self._next_look:
                self._next_look = now + _LOOK_SECONDS
                self._begin(writer, behind)
        except PlatformError as error:
            log.warning("compaction: %s", error)

    def close(self) -> None:
        """Drop what is under way."""
        self._cancelled.cancel()
        self._thread.shutdown(cancel_futures=True)
        work, self._work = self._work, None
        if work is not None and not work.cancelled() and work.exception() is None:
            merged = work.result()
            if merged is not None:
                self._forget(merged)

    def _begin(self, writer: Writer, behind: bool) -> None:
        for spec in COMPACTED:
            files = live_files(writer.table(spec).snapshot())
            if behind and len(files) < self._policy.urgent_files:
                continue
            job = next_job(files, self._clock(), self._policy)
            if job is not None:
                self._work = self._thread.submit(self._merge, spec, job)
                return
        if time.monotonic() >= self._next_clean:
            self._next_clean = time.monotonic() + _CLEAN_SECONDS
            self._work = self._thread.submit(self._clean_logs)

    def _configure(self, writer: Writer) -> None:
        for spec in COMPACTED:
            writer.table(spec).configure({RETENTION: f"interval {self._keep_seconds} seconds"})
            writer.rewritten(spec)
        self._configured = True

    # --- in the thread ---

    def _merge(self, spec: TableSpec, job: Job) -> _Merged:
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
        return _Merged(spec, job, file, time.monotonic() - begun)

    def _clean_logs(self) -> None:
        for spec in TABLES:
            expire_log(self._lake, spec, keep=entries_kept(spec, self._log_commits))

    # --- in the landing thread ---

    def _commit(self, writer: Writer, merged: _Merged) -> None:
        self._reached(Point.MERGED_WRITTEN)
        metadata = {
            "dcp.compaction": json.dumps(
                {
                    "files": len(merged.job.files),
                    "rows": merged.file.rows,
                    "bytes": [merged.job.bytes, merged.file.size],
                    "closed hour": merged.job.ordered,
                    "seconds": round(merged.seconds, 3),
                }
            )
        }
        table = writer.table(merged.spec)
        try:
            version = table.rewrite(merged.job.paths, merged.file, metadata=metadata)
        except CommitConflictError:
            # A store that repeats a put by itself may call a commit of ours taken.
            table.refresh()
            version = table.version if _is_live(table, merged.file.path) else None
        if version is None:
            self._forget(merged)
        else:
            self.commits += 1
            self.files += len(merged.job.files)
            self._reached(Point.MERGED_COMMITTED)
        writer.rewritten(merged.spec)

    def _forget(self, merged: _Merged) -> None:
        self._lake.remove(merged.spec, merged.file.path)
        if merged.spec is SILVER_EVENTS:
            self._identity_files.remove(merged.file.path)
        else:
            remove_origin(self._lake, merged.spec, merged.file.path)


def _is_live(table: LakeTable, path: str) -> bool:
    return path in table.snapshot().actions["path"].to_pylist()


def _step_back() -> None:
    """Landing goes first: on Linux a thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
