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

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import CommitConflictError, StoreUnavailableError
from dc_platform.lake.parquet import LANDED, DataFile
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

    def overlapping(self, column: str, ranges: Iterable[tuple[int, int]]) -> Snapshot:
        """Only the files whose `column`, a time, may lie in one of the ranges [from, to], in epoch
        microseconds.
        """
        low, high = (bound.cast(pa.int64()) for bound in self.bounds(column))
        keep = pa.repeat(False, len(self.actions))
        for first, last in ranges:
            near = pc.and_(
                pc.less_equal(low, last).fill_null(True),
                pc.greater_equal(high, first).fill_null(True),
            )
            keep = pc.or_(keep, near)
        return Snapshot(self.version, self.actions.filter(keep), self.root)

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
    """A table at a snapshot, which `refresh` and `commit` move forward. Not thread-safe."""

    def __init__(self, lake: Lake, spec: TableSpec) -> None:
        self.lake = lake
        self.spec = spec
        try:
            self._delta = lake.open(spec)
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
        return self._write([_add(file, self.spec.partition_by) for file in files], properties, txns)

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

    def replace_all(self, partitions: Partitions, *, metadata: Mapping[str, str]) -> int:
        """Put files in place of all files of several partitions, in one exact commit."""
        name = f"partition.{self.spec.partition_by}"
        old = [row for row in self._live() if row.get(name) in partitions]
        new = [file for files in partitions.values() for file in files]
        return self._swap(old, new, changes_data=True, metadata=metadata)

    def put_in_place(
        self, paths: Collection[str], files: Sequence[DataFile], *, metadata: Mapping[str, str]
    ) -> int:
        """Put `files` in place of the files `paths`, which are live; exact."""
        old = [row for row in self._live() if row["path"] in paths]
        if len(old) != len(paths):
            raise CommitConflictError(f"{self.spec.name}: a file to be replaced is no longer live")
        return self._swap(old, files, changes_data=True, metadata=metadata)

    def rewrite(
        self, paths: Sequence[str], file: DataFile, *, metadata: Mapping[str, str]
    ) -> int | None:
        """Put `file`, which has the same rows, in place of the files `paths`; exact.

        None, and nothing is done, when one of them is no longer live. The commit says that it changes
        no data, so nobody who follows the table takes its rows for new ones. Offsets stay.
        """
        wanted = set(paths)
        old = [row for row in self._live() if row["path"] in wanted]
        if len(old) != len(wanted) or sum(row["num_records"] for row in old) != file.rows:
            return None
        return self._swap(old, [file], changes_data=False, metadata=metadata)

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
    ) -> int:
        self._check_young(new)
        by = self.spec.partition_by
        return self._write(
            [
                *(_remove(row, by, changes_data) for row in old),
                *(_add(file, by, changes_data) for file in new),
            ],
            CommitProperties(custom_metadata=dict(metadata), max_commit_retries=0),
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


def _remove(row: dict[str, Any], partition_by: str | None, changes_data: bool) -> RemoveAction:
    value = row[f"partition.{partition_by}"] if partition_by else None
    return RemoveAction(
        row["path"],
        data_change=changes_data,
        deletion_timestamp=time.time_ns() // 1_000_000,
        size=row["size_bytes"],
        partition_values={partition_by: _partition_value(value)} if partition_by else {},
    )


def _add(file: DataFile, partition_by: str | None, changes_data: bool = True) -> AddAction:
    values = {partition_by: _partition_value(file.partition)} if partition_by else {}
    return AddAction(file.path, file.size, values, file.modified_ms, changes_data, file.stats)


def _partition_value(partition: date | None) -> str | None:
    return partition.isoformat() if partition else None


def sql_list(values: Iterable[str]) -> str:
    """A DuckDB list literal of strings."""
    return "[" + ", ".join("'" + v.replace("'", "''") + "'" for v in values) + "]"


def table_sql(spec: TableSpec, snapshot: Snapshot) -> str:
    """A SELECT of all columns of a table at a snapshot."""
    if not snapshot.paths:
        return empty_select(spec.columns)
    names = ", ".join(spec.columns.names)
    partitioned = "true" if spec.partition_by else "false"
    return (
        f"select {names} from read_parquet({sql_list(snapshot.paths)},"
        f" hive_partitioning = {partitioned})"
    )


def empty_select(schema: pa.Schema) -> str:
    """A DuckDB SELECT with the columns of `schema` and no rows."""
    columns = ", ".join(f"null::{_sql_type(field.type)} as {field.name}" for field in schema)
    return f"select {columns} where false"


def _sql_type(type_: pa.DataType) -> str:
    if pa.types.is_timestamp(type_):
        return "timestamptz"
    if pa.types.is_map(type_):
        return "map(varchar, varchar)"
    names = {
        "int32": "integer",
        "int64": "bigint",
        "double": "double",
        "date32[day]": "date",
        "binary": "blob",
        "decimal128(38, 9)": "decimal(38, 9)",
    }
    return names.get(str(type_), "varchar")
