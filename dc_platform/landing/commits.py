"""Three commits that make one landing: bronze, quarantine, silver last.

Silver's txn is the only truth about progress: where a run resumes, and the border of the union.
A crash leaves bronze (and quarantine) ahead of it at most; the next run reads the same offsets again
and each table drops what lies below its own txn. So every order of crashes gives each row once.
Fencing: a run commits only from a snapshot in which silver's txn is where the run itself left it.
Two runs that wake up with the same plan are told apart by the commits themselves: in bronze the same
app id conflicts, in silver any newer version does. A restore begins a new epoch of silver, with other
app ids: whoever landed in the epoch before it ends, and its successor begins where the restore put it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dc_platform.broker.records import TopicInfo
from dc_platform.contracts import blocks
from dc_platform.contracts.ops_tables import LANDING_BORDER
from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TABLES,
    TableSpec,
)
from dc_platform.errors import CommitConflictError, FencedError
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.lake.turns import Turns
from dc_platform.landing.batch import (
    Batch,
    Landed,
    Mask,
    TableRows,
    below,
    by_verdict,
    has_verdict,
    mask_rows,
    quarantine_rows,
    scopes_of,
    select_for,
)
from dc_platform.landing.batch_commit import (
    commit_batch,
    epoch_of,
    next_offset,
    publish_border,
)
from dc_platform.landing.deleted import DeletedIdentities
from dc_platform.landing.files import LandingFiles
from dc_platform.landing.identities import IdentityIndex
from dc_platform.landing.keys import KeyMaker
from dc_platform.landing.losses import Losses
from dc_platform.landing.ordered import Ordered
from dc_platform.points import Point, Reached, unarmed

_CONFLICT_RETRIES = 20


class _BronzeBegun(NamedTuple):
    """What bronze lacks of a batch, on its way into a file; nothing when `ends` is empty."""

    ends: dict[int, int]
    files: Future[list[DataFile]]


class Committer:
    """Lands batches of one slot's partitions. Not thread-safe.

    Identities that are many go to temporary files in `spill_directory`; without it, to memory.
    """

    def __init__(
        self,
        lake: Lake,
        info: TopicInfo,
        partitions: list[int],
        *,
        identity_memory_mb: int,
        spill_directory: Path | None = None,
        owner: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Reached = unarmed,
        threads: Executor | None = None,
    ) -> None:
        for spec in TABLES:
            lake.ensure(spec)
        self._lake = lake
        self._info = info
        self._partitions = partitions
        self._owner = owner
        self._clock = clock
        self._reached = reached
        self._bronze = LakeTable(lake, BRONZE_EVENTS)
        self._quarantine = LakeTable(lake, SILVER_QUARANTINE)
        self._silver = LakeTable(lake, SILVER_EVENTS)
        self._turns = Turns(lake, SILVER_EVENTS)
        self._border = LakeTable(lake, LANDING_BORDER)
        maker = KeyMaker(self._silver.id)
        self._maker = maker
        self.identity_files = IdentityFiles(lake, SILVER_EVENTS, maker.mark)
        self._events = IdentityIndex(
            maker,
            id_column="event_id",
            memory_mb=identity_memory_mb,
            files=self.identity_files,
            spill_directory=spill_directory,
        )
        self._rejects = IdentityIndex(
            maker, id_column="quarantine_id", memory_mb=64, spill_directory=spill_directory
        )
        self._deleted = DeletedIdentities(lake, maker, spill_directory=spill_directory)
        self._threads = threads or ThreadPoolExecutor(2, thread_name_prefix="parquet")
        self._reading_ahead: Future[None] | None = None
        self.file_bytes = 0  # of silver's newest file; 0 when the newest batch had none
        self._files = LandingFiles(lake, self.identity_files, self._threads, reached)
        self._losses = Losses(lake, info.topic_id, reached)
        self.refresh()

    def refresh(self) -> None:
        """Take the newest versions as where this writer stands; only before its first batch."""
        for table in (self._bronze, self._quarantine, self._silver):
            table.refresh()
        self._snapshot = self._silver.snapshot()
        self._epoch = epoch_of(self._silver)
        self._offsets = self._committed(self._silver)

    @property
    def offsets(self) -> dict[int, int | None]:
        """Partition → next offset to land; None when the partition never landed."""
        return dict(self._offsets)

    def table(self, spec: TableSpec) -> LakeTable:
        """The table as this writer has it; only between two landings. It may be moved to a newer
        version: the fence looks at the offsets there, and a landing that finds silver newer than the
        snapshot of its look-up reads what came since. Whoever commits to it says so with `rewritten`.
        """
        tables = (self._bronze, self._quarantine, self._silver)
        return next(table for table in tables if table.spec is spec)

    def rewritten(self, spec: TableSpec) -> None:
        """The table was moved by compaction, which adds no rows; those that others landed by then are
        read by the next look-up.
        """
        if spec is SILVER_EVENTS:
            self._snapshot = self._silver.snapshot()

    @property
    def bronze_offsets(self) -> dict[int, int | None]:
        """Partition → next offset of bronze, which is ahead of silver after a crash."""
        return self._committed(self._bronze)

    def _committed(self, table: LakeTable) -> dict[int, int | None]:
        return {p: next_offset(table, self._info, p) for p in self._partitions}

    def widen(self, info: TopicInfo, partitions: list[int]) -> None:
        """Take the partitions that the topic got; call `begin` for them."""
        self._silver.refresh()
        self._info, self._partitions = info, partitions
        self._check_epoch()
        self._offsets = {**self._committed(self._silver), **self._offsets}

    def begin(self, starts: Mapping[int, int]) -> None:
        """Where reading begins in partitions that never landed: Kafka's oldest offset."""
        bronze = self.bronze_offsets
        for partition, offset in starts.items():
            if self._offsets.get(partition) is None:
                # Bronze may have landed the first records, and silver not yet.
                self._offsets[partition] = offset if bronze.get(partition) is None else 0
                self._losses.met(partition, self._offsets[partition] or 0)

    def read_ahead(self) -> None:
        """Begin to read the identities that the first batch is likely to be compared with."""
        self._reading_ahead = self._threads.submit(self._events.read_ahead, self._snapshot)

    def land(self, batch: Batch) -> Landed:
        """Commit a batch to all tables. Raises FencedError when another run owns the partitions.

        When the store fails the batch may be landed again: nothing is doubled.
        """
        self._files.drop_unused()
        self._check_fence(batch)
        processed_at = self._clock()
        self._record_gaps(batch, processed_at)
        batch = replace(batch, judged=self._deleted.stubbed(batch.judged))
        self._reached(Point.BEFORE_BRONZE)
        # It hangs on no look-up, and takes longer than one: both at once.
        bronze = self._begin_bronze(batch, processed_at)
        judged = batch.judged
        accepted, rejected = by_verdict(judged)
        identities = self._ordered(accepted, "event_id")
        fresh = self._fresh(self._events, identities, self._snapshot)
        silver = mask_rows(select_for(SILVER_EVENTS, accepted), identities.mask(fresh))
        identities = identities.kept(fresh)
        writing = self._files.begin_silver(silver, identities, processed_at)
        self._land_bronze(batch, processed_at, bronze)
        self._reached(Point.AFTER_BRONZE)
        if len(rejected):
            self._land_quarantine(batch, rejected, processed_at)
            self._reached(Point.AFTER_QUARANTINE)
        landed = self._land_silver(batch, silver, identities, writing.result(), processed_at)
        self._reached(Point.AFTER_SILVER)
        publish_border(self._border, self._silver, self._info)
        self._reached(Point.BORDER_PUBLISHED)
        others = len(judged) - len(accepted) - len(rejected)
        deleted = int(has_verdict(judged, blocks.DELETED).sum()) if others else 0
        return Landed(
            received=len(judged),
            landed=landed,
            duplicates=len(accepted) - landed,
            rejected=len(rejected),
            sampled=others - deleted,
            deleted=deleted,
            silver_version=self._silver.version,
            processed_at=processed_at,
        )

    def _check_fence(self, batch: Batch) -> None:
        self._check_epoch()
        for partition, covered in batch.ranges.items():
            committed = next_offset(self._silver, self._info, partition)
            expected = self._offsets[partition]
            if expected != covered.start or (committed is not None and committed != expected):
                raise FencedError(
                    f"partition {partition} stands at {committed}, this run is at {covered.start}:"
                    " another run has landed it"
                )

    def _record_gaps(self, batch: Batch, at: datetime) -> None:
        if self._losses.of(batch):
            self._bronze.refresh()
            self._losses.record(batch, self.bronze_offsets, at)

    def _ordered(self, rows: pa.Table, id_column: str) -> Ordered:
        return Ordered.of(self._maker.keys(rows["source_id"], rows[id_column]), scopes_of(rows))

    def _fresh(self, index: IdentityIndex, found: Ordered, snapshot: Snapshot) -> Mask:
        """Which of the identities are new, in their own order."""
        reading, self._reading_ahead = self._reading_ahead, None
        if reading is not None:
            reading.result()
        if not len(found):
            return np.zeros(0, bool)
        return found.firsts() & ~index.known(found.keys, found.scopes, snapshot)

    # --- bronze: everything, once per address ---

    def _begin_bronze(self, batch: Batch, processed_at: datetime) -> _BronzeBegun:
        done = {p: o for p, o in self.bronze_offsets.items() if o is not None}
        old = below(batch.judged, done)
        # What was read from bronze is there.
        if batch.counted is not None and old.any():
            self._losses.check_given_up(mask_rows(batch.judged, old))
        ends = {p: r.end for p, r in batch.ranges.items() if r.end > done.get(p, -1)}
        rows = mask_rows(batch.judged, ~old)
        return _BronzeBegun(ends, self._files.begin_bronze(rows, processed_at))

    def _land_bronze(self, batch: Batch, processed_at: datetime, begun: _BronzeBegun) -> None:
        for attempt in range(_CONFLICT_RETRIES):
            if attempt:
                self._losses.check(batch, self.bronze_offsets)
                begun = self._begin_bronze(batch, processed_at)
            if not begun.ends:
                return
            files = begun.files.result()
            self._reached(Point.BRONZE_WRITTEN)
            if self._commit(self._bronze, files, begun.ends, batch, exact=False):
                return
            self._check_silver_unmoved()
        raise CommitConflictError("bronze.events: too many conflicting commits; trying again later")

    # --- quarantine: every rejected event once ---

    def _land_quarantine(self, batch: Batch, rejected: pa.Table, processed_at: datetime) -> None:
        for _ in range(_CONFLICT_RETRIES):
            done = self._committed(self._quarantine)
            old = below(rejected, {p: o for p, o in done.items() if o is not None})
            rows = mask_rows(rejected, ~old)
            if not len(rows):
                return
            identities = self._ordered(rows, "quarantine_id")
            fresh = self._fresh(self._rejects, identities, self._quarantine.snapshot())
            rows = mask_rows(rows, identities.mask(fresh))
            files = []
            if len(rows):
                table = quarantine_rows(rows, processed_at)
                files = [self._files.write(SILVER_QUARANTINE, table, processed_at)]
            self._reached(Point.QUARANTINE_WRITTEN)
            # Where a crashed run left the table ahead of this batch, its offset stays.
            ends = {p: max(r.end, done[p] or 0) for p, r in batch.ranges.items()}
            if self._commit(self._quarantine, files, ends, batch, exact=True):
                keys = identities.keys.take(fresh)
                self._rejects.add(keys, of=self._paths(SILVER_QUARANTINE, files))
                return
            self._check_silver_unmoved()
        raise CommitConflictError("silver.quarantine: too many conflicts; trying again later")

    # --- silver: every accepted event once, and the offsets that count ---

    def _land_silver(
        self,
        batch: Batch,
        rows: pa.Table,
        found: Ordered,
        file: DataFile | None,
        processed_at: datetime,
    ) -> int:
        ends = {p: r.end for p, r in batch.ranges.items()}
        for _ in range(_CONFLICT_RETRIES):
            with self._turns.taken():
                self._check_silver_unmoved()
                if self._silver.version != self._snapshot.version:
                    rows, found, file = self._without_newcomers(rows, found, file, processed_at)
                self._reached(Point.SILVER_WRITTEN)
                files = [file] if file else []
                if not self._commit(self._silver, files, ends, batch, exact=True):
                    continue
            self._reached(Point.SILVER_COMMITTED)
            self._events.add(found.keys, of=self._paths(SILVER_EVENTS, files))
            self._snapshot = self._silver.snapshot()
            self._offsets.update(ends)
            self._losses.landed(ends)
            self.file_bytes = file.size if file else 0
            return len(rows)
        raise CommitConflictError("silver.events: too many conflicting commits; trying again later")

    def _without_newcomers(
        self, rows: pa.Table, found: Ordered, file: DataFile | None, processed_at: datetime
    ) -> tuple[pa.Table, Ordered, DataFile | None]:
        """Drop what another writer landed, or a deletion took away, since the look-up; write the file
        anew if it changed.
        """
        self._snapshot = self._silver.snapshot()
        fresh = ~self._events.known(found.keys, found.scopes, self._snapshot)
        fresh &= ~self._deleted.known(found.keys, found.scopes)
        if fresh.all():
            return rows, found, file
        if file:
            self._files.drop(SILVER_EVENTS, file.path)
        rows, found = mask_rows(rows, found.mask(fresh)), found.kept(fresh)
        return rows, found, self._files.silver(rows, found, processed_at)

    def _check_silver_unmoved(self) -> None:
        self._silver.refresh()
        self._check_epoch()
        for partition, expected in self._offsets.items():
            committed = next_offset(self._silver, self._info, partition)
            if committed is not None and committed != expected:
                raise FencedError(
                    f"partition {partition} moved from {expected} to {committed} under this run:"
                    " another run has landed it"
                )

    def _check_epoch(self) -> None:
        # What this run knows of silver's identities may no longer be there.
        if epoch_of(self._silver) != self._epoch:
            raise FencedError("silver.events was restored to a former state: the next run lands on")

    def _commit(
        self,
        table: LakeTable,
        files: list[DataFile],
        ends: Mapping[int, int],
        batch: Batch,
        *,
        exact: bool,
    ) -> bool:
        """Commit; False after a conflict (the table is refreshed then)."""
        self._files.use(files)
        if commit_batch(table, self._info, files, ends, batch, owner=self._owner, exact=exact):
            return True
        # Silver's is tried again. Those of the others are written anew, and here none is live.
        for file in files if table is not self._silver else []:
            self._files.drop(table.spec, file.path)
        return False

    def _paths(self, spec: TableSpec, files: list[DataFile]) -> list[str]:
        return [f"{self._lake.uri_of(spec)}/{file.path}" for file in files]

    def rows(self) -> TableRows:
        """How many rows the tables have, and bytes."""
        bronze, quarantine = self._bronze.snapshot(), self._quarantine.snapshot()
        by_day = self._snapshot.rows_by_partition(), quarantine.rows_by_partition()
        size = (bronze.bytes, self._snapshot.bytes, quarantine.bytes)
        return TableRows(bronze.rows, *by_day, size)

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown()
        self._files.drop_unused()
