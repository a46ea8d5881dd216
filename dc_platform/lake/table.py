"""Commits and snapshots of one table.

A commit carries the files and, per Kafka partition, the offset up to which they hold everything (a
Delta `txn` action: app id → next offset). Both are in the table, or neither is.

Two ways to commit:
    exact=True   a compare-and-swap on the version: refused when the table moved since the snapshot
    exact=False  rebased onto newer commits, refused when one of them has the same app id, took files
                 away (compaction, a backfill) or changed the table's properties
Delta does not compare the value of a txn with the one before: callers read `txn` from the same
snapshot that they commit from.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import CommitConflictError, StoreUnavailableError
from dc_platform.lake.actions import add_action, remove_action
from dc_platform.lake.parquet import LANDED, DataFile
from dc_platform.lake.ranges import EVER, NEVER, Times, meeting
from dc_platform.lake.sql import empty_select as empty_select
from dc_platform.lake.sql import files_sql as files_sql
from dc_platform.lake.sql import sql_list as sql_list
from dc_platform.lake.sql import sql_text as sql_text
from dc_platform.lake.sql import table_sql as table_sql
from dc_platform.lake.store import Lake

Partitions = Mapping[date, Sequence[DataFile]] | Mapping[None, Sequence[DataFile]]

# Retries of a rebased commit; each is one attempt at a newer version.
_REBASE_RETRIES = 30
# delta-rs looks for expired log entries at each commit: 9 of 23 ms with 1,000 of them. Ours are
# removed by `lake/cleaning.py`, in one go and off the commit's way.
AFTER_COMMIT = PostCommitHookProperties(cleanup_expired_logs=False)
RETENTION = "delta.deletedFileRetentionDuration"
_KEEPS_SECONDS = 3600
_SECONDS = re.compile(r"interval (\d+) seconds?")


@dataclass(frozen=True)
class Snapshot:
    """The files of one version of a table, with their statistics."""

    version: int
    actions: pa.Table
    root: str

    @cached_property
    def paths(self) -> list[str]:
        """Absolute paths of the live files."""
        return [f"{self.root}/{path}" for path in self.actions["path"].to_pylist()]

    def lacking(self, spec: TableSpec) -> frozenset[str]:
        """Absolute paths of the files of which the log does not say that they have all columns."""
        names = [f"null_count.{name}" for name in spec.added]
        if not names:
            return frozenset()
        if not set(names) <= set(self.actions.column_names):
            return frozenset(self.paths)
        counts = [self.actions[name] for name in names]
        if not any(column.null_count for column in counts):
            return frozenset()
        of_files = zip(self.paths, *(column.to_pylist() for column in counts), strict=True)
        return frozenset(path for path, *nulls in of_files if None in nulls)

    @property
    def landed_last(self) -> str | None:
        """Absolute path of the live file that landing wrote last; None when all are merged."""
        written = self.actions["modification_time"].to_pylist()
        landed = [
            (at, path)
            for at, path in zip(written, self.paths, strict=True)
            if PurePosixPath(path).name.startswith(LANDED)
        ]
        return max(landed)[1] if landed else None

    def rows_of(self, paths: Collection[str]) -> int:
        """Rows of some of the live files."""
        rows = zip(self.paths, self.actions["num_records"].to_pylist(), strict=True)
        wanted = set(paths)
        return sum(n or 0 for path, n in rows if path in wanted)

    def bounds(self, column: str) -> tuple[pa.Array, pa.Array]:
        """(minimum, maximum) of `column` per file; null where the log has none."""
        size = len(self.actions)
        both = []
        for side in ("min", "max"):
            name = f"{side}.{column}"
            both.append(
                self.actions[name].combine_chunks()
                if name in self.actions.column_names
                else pa.nulls(size)
            )
        return both[0], both[1]

    @cached_property
    def event_times(self) -> tuple[Times, Times]:
        """The earliest and the latest event_time of each file, epoch microseconds; NEVER and EVER where
        the log has none.
        """
        return self._times("event_time")

    def _times(self, column: str) -> tuple[Times, Times]:
        low, high = (bound.cast(pa.int64()) for bound in self.bounds(column))
        return low.fill_null(NEVER).to_numpy(), high.fill_null(EVER).to_numpy()

    def sole(self, column: str) -> Any:
        """The value that all rows have in `column`; None where the log does not say so."""
        nulls, bounds = f"null_count.{column}", [f"min.{column}", f"max.{column}"]
        if not self.paths or not {nulls, *bounds} <= set(self.actions.column_names):
            return None
        # Of no rows but nulls the log has no bounds, and null is no value that all rows have.
        values = {value for name in bounds for value in self.actions[name].unique().to_pylist()}
        none_null = set(self.actions[nulls].unique().to_pylist()) == {0}
        return values.pop() if none_null and len(values) == 1 else None

    def overlapping(self, column: str, ranges: Iterable[tuple[int, int]]) -> Snapshot:
        """Only the files whose `column`, a time, may lie in one of the ranges [from, to], in epoch
        microseconds.
        """
        keep = pa.array(self.near(column, ranges))
        return Snapshot(self.version, self.actions.filter(keep), self.root)

    def near(self, column: str, ranges: Iterable[tuple[int, int]]) -> npt.NDArray[np.bool_]:
        """Which files these are."""
        least, most = self.event_times if column == "event_time" else self._times(column)
        return meeting(least, most, ranges)

    @property
    def rows(self) -> int:
        """Rows of all live files."""
        return sum(n or 0 for n in self.actions["num_records"].to_pylist())

    def rows_by_partition(self, column: str = "ingest_date") -> dict[str, int]:
        """Rows per value of the partition column."""
        counts: dict[str, int] = {}
        partitions = self.actions[f"partition.{column}"].to_pylist()
        for partition, rows in zip(
            partitions, self.actions["num_records"].to_pylist(), strict=True
        ):
            counts[str(partition)] = counts.get(str(partition), 0) + (rows or 0)
        return counts

    @property
    def bytes(self) -> int:
        """Bytes of all live files."""
        return sum(self.actions["size_bytes"].to_pylist())


class LakeTable:
    """A table at a snapshot (the newest, or of a version), which `refresh` and `commit` move forward.
    Not thread-safe.
    """

    def __init__(self, lake: Lake, spec: TableSpec, version: int | None = None) -> None:
        self.lake = lake
        self.spec = spec
        try:
            self._delta = lake.open(spec, version)
        except TableNotFoundError as error:
            raise StoreUnavailableError(
                f"table {spec.name} does not exist in {lake.uri}; landing creates it (dcp up)"
            ) from error
        except (DeltaError, OSError) as error:
            raise StoreUnavailableError(f"opening {spec.name} failed: {error}") from error
        self._schema = self._delta.schema()
        self.uri = lake.uri_of(spec)
        # Random, made with the table.
        self.id = str(self._delta.metadata().id)
        # Asked before, at the version: delta-rs reads the log for each (1 ms; a landing asks 12).
        self._txns: dict[str, int | None] = {}
        self._txns_at = -1
        # For so long files that are not live stay on disk.
        self.keeps_seconds = self._read_retention()

    @property
    def version(self) -> int:
        """Version of the snapshot."""
        return int(self._delta.version())

    def refresh(self) -> int:
        """Move to the newest version."""
        try:
            self._delta.update_incremental()
        except (DeltaError, OSError) as error:
            raise StoreUnavailableError(f"reading the log of {self.spec.name}: {error}") from error
        return self.version

    @property
    def may_have_moved(self) -> bool:
        """Whether there may be a newer version: in 10 µs, where `refresh` takes 7 ms to find none.

        Not for those who are far behind: the next version's entry may be gone from the log.
        """
        return self.lake.has(self.spec, f"_delta_log/{self.version + 1:020}.json")

    def txn(self, app_id: str) -> int | None:
        """The offset that `app_id` last committed, in this snapshot."""
        if self._txns_at != self.version:
            # Not only `refresh` moves the handle: delta-rs does, too, when it sets a property.
            self._txns, self._txns_at = {}, self.version
        if app_id not in self._txns:
            version = self._delta.transaction_version(app_id)
            self._txns[app_id] = None if version is None else int(version)
        return self._txns[app_id]

    def snapshot(self) -> Snapshot:
        """The live files of this version."""
        actions = pa.table(self._delta.get_add_actions(flatten=True))
        return Snapshot(self.version, actions, self.uri)

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Commits with their metadata, newest first."""
        try:
            return list(self._delta.history(limit))
        except (DeltaError, OSError) as error:
            raise StoreUnavailableError(f"reading the log of {self.spec.name}: {error}") from error

    def commit(
        self,
        files: Sequence[DataFile],
        *,
        txns: Mapping[str, int],
        exact: bool,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Append `files`; returns the new version.

        Raises CommitConflictError when a newer commit forbids it, StoreUnavailableError when the
        store failed: the commit may then exist nevertheless, which the txns tell after a refresh. The
        snapshot is the newest then where the store answers.
        """
        self._check_young(files)
        properties = CommitProperties(
            custom_metadata=dict(metadata or {}),
            max_commit_retries=0 if exact else _REBASE_RETRIES,
            app_transactions=[Transaction(app, version) for app, version in txns.items()],
        )
        by = self.spec.partition_by
        return self._write([add_action(file, by) for file in files], properties, txns)

    def replace(
        self, partition: date | None, files: Sequence[DataFile], *, metadata: Mapping[str, str]
    ) -> int:
        """Put `files` in place of all files of a partition, or of all there are in a table without
        partitions; exact, as `commit` with exact=True.
        """
        files_of: Partitions = {None: files}
        if partition is not None:
            files_of = {partition: files}
        return self.replace_all(files_of, metadata=metadata)

    def replace_all(
        self,
        partitions: Partitions,
        *,
        metadata: Mapping[str, str],
        txns: Mapping[str, int] | None = None,
    ) -> int:
        """Put files in place of all files of several partitions, in one exact commit; of none, when
        only `txns` are to be recorded.
        """
        name = f"partition.{self.spec.partition_by}"
        old = [row for row in self._live() if row.get(name) in partitions]
        new = [file for files in partitions.values() for file in files]
        return self._swap(old, new, changes_data=True, metadata=metadata, txns=txns)

    def put_in_place(
        self,
        paths: Collection[str],
        files: Sequence[DataFile],
        *,
        metadata: Mapping[str, str],
        txns: Mapping[str, int] | None = None,
    ) -> int:
        """Put `files` in place of the files `paths`, which are live, with offsets if any; exact."""
        old = [row for row in self._live() if row["path"] in paths]
        if len(old) != len(paths):
            raise CommitConflictError(f"{self.spec.name}: a file to be replaced is no longer live")
        return self._swap(old, files, changes_data=True, metadata=metadata, txns=txns)

    def rewrite(
        self, paths: Sequence[str], *files: DataFile, metadata: Mapping[str, str]
    ) -> int | None:
        """Put `files`, which have the same rows, in place of the files `paths`; exact.

        None, and nothing is done, when one of them is no longer live. The commit says that it changes
        no data, so nobody who follows the table takes its rows for new ones. Offsets stay.
        """
        wanted = set(paths)
        old = [row for row in self._live() if row["path"] in wanted]
        rows = sum(file.rows for file in files)
        if len(old) != len(wanted) or sum(row["num_records"] for row in old) != rows:
            return None
        return self._swap(old, files, changes_data=False, metadata=metadata)

    def configure(self, properties: Mapping[str, str]) -> None:
        """Set table properties where they differ."""
        have = self._delta.metadata().configuration
        if all(have.get(name) == value for name, value in properties.items()):
            return
        try:
            self._delta.alter.set_table_properties(dict(properties))
        except CommitFailedError as error:
            raise CommitConflictError(f"{self.spec.name}: {error}") from error
        except (DeltaError, OSError) as error:
            raise StoreUnavailableError(f"configuring {self.spec.name} failed: {error}") from error
        self.refresh()
        self.keeps_seconds = self._read_retention()

    def _read_retention(self) -> int:
        said = _SECONDS.match(self._delta.metadata().configuration.get(RETENTION, ""))
        return int(said[1]) if said else _KEEPS_SECONDS

    def _live(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pa.table(self._delta.get_add_actions(flatten=True)).to_pylist()
        return rows

    def _swap(
        self,
        old: Sequence[dict[str, Any]],
        new: Sequence[DataFile],
        *,
        changes_data: bool,
        metadata: Mapping[str, str],
        txns: Mapping[str, int] | None = None,
    ) -> int:
        self._check_young(new)
        by = self.spec.partition_by
        return self._write(
            [
                *(remove_action(row, by, changes_data) for row in old),
                *(add_action(file, by, changes_data) for file in new),
            ],
            CommitProperties(
                custom_metadata=dict(metadata),
                max_commit_retries=0,
                app_transactions=[Transaction(app, at) for app, at in (txns or {}).items()],
            ),
            txns,
        )

    def _check_young(self, files: Sequence[DataFile]) -> None:
        """A file that no commit names is deleted when it is old: a writer that was frozen with one in
        its hands must not commit it then.
        """
        oldest = time.time_ns() // 1_000_000 - self.keeps_seconds * 500
        if any(file.modified_ms < oldest for file in files):
            raise CommitConflictError(
                f"{self.spec.name}: a file that was written long ago is not committed; it is written"
                " anew"
            )

    def _write(
        self,
        actions: Sequence[AddAction | RemoveAction],
        properties: CommitProperties,
        txns: Mapping[str, int] | None = None,
    ) -> int:
        before = self.version
        known = self._txns if self._txns_at == before else {}
        try:
            self._delta.create_write_transaction(
                list(actions),
                mode="append",
                schema=self._schema,
                partition_by=[self.spec.partition_by] if self.spec.partition_by else None,
                commit_properties=properties,
                post_commithook_properties=AFTER_COMMIT,
            )
        except CommitFailedError as error:
            raise CommitConflictError(f"{self.spec.name}: {error}") from error
        except (DeltaError, OSError) as error:
            # A handle whose own version has left the log commits nothing ever again; moved on it does.
            with suppress(StoreUnavailableError):
                self.refresh()
            raise StoreUnavailableError(f"commit to {self.spec.name} failed: {error}") from error
        if self.refresh() == before + 1:
            # This commit alone came since.
            self._txns, self._txns_at = {**known, **(txns or {})}, self.version
        return self.version
