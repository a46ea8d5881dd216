"""Rows out of a table: the files that have them are replaced by files that do not, beside landing.

Each commit is a compare-and-swap on the newest version, in silver in turn with the landing runs, and
says `dcp.delete`. Offsets stay as they are. Where compaction merged a file meanwhile, the merged one is
looked at in the next pass.

In bronze a stub stays of each row (its address, source and times), for as long as the ledger and the
audits ask for it: bronze has a row for every address, so nothing that was deleted is missed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import Any

import duckdb
import pyarrow as pa

from dc_platform.contracts import blocks
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, STUB_COLUMNS, TableSpec
from dc_platform.errors import CommitConflictError, StoreUnavailableError
from dc_platform.lake.parquet import LANDED, DataFile, archive_options, writer_options
from dc_platform.lake.rewrite import COLD, MERGED, WARM, write_rows
from dc_platform.lake.scratch import scratch
from dc_platform.lake.sql import file_sql
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, sql_list
from dc_platform.lake.turns import Turns
from dc_platform.points import Point, Reached, unarmed
from dc_platform.retention.commit import drop, keep_beside, put_in_place
from dc_platform.retention.conditions import Conditions

# A file that is written waits for its commit while the others of the chunk are written.
_CHUNK_FILES = 64
_CHUNK_BYTES = 2**30
_PASSES = 20
_TRIES = 20
_BATCH_ROWS = 16_384
# One thread holds a row group two and a half times, and one is of 128 MiB at most.
_MEMORY = "1GB"
# ZSTD's, of what stays of a warm or cold file: higher ones take 2 to 13 % less room, slowly.
_ARCHIVE_LEVEL = 9
METADATA = "dcp.delete"


@dataclass(frozen=True)
class Match:
    """A live file with rows that go; `path` is relative to the table. `share`: their share of its
    bytes. `gone` counts the rows, stubs that are no longer needed not among them.
    """

    path: str
    day: date
    size: int
    rows: int
    gone: int

    @property
    def share(self) -> int:
        """Bytes."""
        return self.size * self.gone // max(1, self.rows)


@dataclass(frozen=True)
class Erased:
    """What went from a table. `bytes`: the rows' share of the files'."""

    rows: int = 0
    files: int = 0
    bytes: int = 0
    version: int = -1

    def with_more(self, matches: Sequence[Match], version: int) -> Erased:
        """Together with what a further commit took."""
        return Erased(
            self.rows + sum(match.gone for match in matches),
            self.files + len(matches),
            self.bytes + sum(match.share for match in matches),
            version,
        )


@dataclass(frozen=True)
class Stubs:
    """Of what was received before then (epoch microseconds) no stub stays in bronze."""

    needless_before: int

    @property
    def needless(self) -> str:
        """The condition in SQL."""
        return f"received_at < make_timestamptz({self.needless_before})"


class Eraser:
    """Takes rows out of the tables of a lake for one deletion."""

    def __init__(
        self, lake: Lake, deletion_id: str, stubs: Stubs, *, reached: Reached = unarmed
    ) -> None:
        self._lake = lake
        self._deletion_id = deletion_id
        self._stubs = stubs
        self._reached = reached
        self._turns = Turns(lake, SILVER_EVENTS)

    def erase(self, spec: TableSpec, conditions: Conditions) -> Erased:
        """Take the rows out; raises CommitConflictError after many passes."""
        table = LakeTable(self._lake, spec)
        done = Erased(version=table.version)
        for _ in range(_PASSES):
            table.refresh()
            found = matches(table, conditions, self._stubs)
            if not found:
                return done
            for chunk in _chunks(found):
                files = self._write(table, conditions, chunk)
                self._reached(Point.ERASED_WRITTEN)
                old, said = [match.path for match in chunk], self._metadata(chunk)
                if put_in_place(table, self._turns, old, files, metadata=said, changes_data=True):
                    done = done.with_more(chunk, table.version)
                    self._reached(Point.ERASED_COMMITTED)
                else:
                    drop(self._lake, spec, files)
        raise CommitConflictError(
            f"{spec.name}: {_PASSES} times there was more to delete; the next run goes on"
        )

    def note(self) -> None:
        """Tell those who follow silver of the deletion, when nothing went from silver itself."""
        table = LakeTable(self._lake, SILVER_EVENTS)
        for _ in range(_TRIES):
            with self._turns.taken():
                table.refresh()
                try:
                    table.commit([], txns={}, exact=True, metadata=self._metadata([]))
                    return
                except CommitConflictError:
                    continue
        raise CommitConflictError(
            "silver.events: too many conflicting commits; the next run goes on"
        )

    def _metadata(self, chunk: Sequence[Match]) -> dict[str, str]:
        said = Erased().with_more(chunk, 0)
        summary = {"id": self._deletion_id, "rows": said.rows, "files": said.files}
        return {METADATA: json.dumps({**summary, "bytes": said.bytes})}

    # --- the files ---

    def _write(
        self, table: LakeTable, conditions: Conditions, chunk: Sequence[Match]
    ) -> list[DataFile]:
        """What takes the place of the files of a chunk; nothing for those that lose every row."""
        files: list[DataFile] = []
        spec = table.spec
        for match in chunk:
            name = f"{_prefix(match.path)}{uuid.uuid4()}.parquet"
            path = str(PurePosixPath(match.path).with_name(name))
            try:
                with scratch(memory=_MEMORY, threads=1) as connection:
                    rest = self._rest(connection, table, conditions, match)
                    options = _options(spec, name)
                    file = write_rows(self._lake, spec, path, match.day, rest, options=options)
            except (OSError, pa.ArrowException, duckdb.Error) as error:
                drop(self._lake, spec, files)
                raise StoreUnavailableError(
                    f"deleting from {match.path} of {spec.name} failed: {error}"
                ) from error
            if not file.rows:
                self._lake.remove(spec, path)
                continue
            # The ledger has to see that bronze's file is another one.
            if spec is SILVER_EVENTS:
                keep_beside(table, file, [match.path])
            files.append(file)
        return files

    def _rest(
        self,
        connection: duckdb.DuckDBPyConnection,
        table: LakeTable,
        conditions: Conditions,
        match: Match,
    ) -> Iterator[pa.Table]:
        """The rows that stay of a file, in their order."""
        spec = table.spec
        gone = f"coalesce({conditions.of(spec)}, false)"
        names, where = ", ".join(spec.file_schema.names), "not gone"
        if spec is BRONZE_EVENTS:
            names = ", ".join(map(_stubbed, spec.file_schema.names))
            stub = f"(gone or verdict = '{blocks.DELETED}')"
            where = f"not ({stub} and {self._stubs.needless})"
        rows = file_sql(spec, f"{table.uri}/{match.path}")
        reader = connection.execute(
            f"select {names} from (select *, {gone} as gone from ({rows})) where {where}"
        ).to_arrow_reader(_BATCH_ROWS)
        for batch in reader:
            yield pa.Table.from_batches([batch]).cast(spec.file_schema)


def matches(table: LakeTable, conditions: Conditions, stubs: Stubs) -> list[Match]:
    """The live files with rows that go, oldest ingest date first."""
    spec, snapshot = table.spec, table.snapshot()
    condition = conditions.of(spec)
    near = set(conditions.near(spec, snapshot))
    needless = "false"
    if spec is BRONZE_EVENTS and condition is not None:
        needless = f"verdict = '{blocks.DELETED}' and {stubs.needless}"
        old = snapshot.overlapping("received_at", [(-(1 << 62), stubs.needless_before)])
        near |= set(old.actions["path"].to_pylist()) if snapshot.paths else set()
    if condition is None or not near:
        return []
    paths = [f"{table.uri}/{path}" for path in sorted(near)]
    with scratch(memory=_MEMORY, threads=1) as connection:
        connection.execute("set preserve_insertion_order = false")
        try:
            found = connection.execute(
                f"select filename, count(*) filter (gone) from ("
                f" select filename, coalesce({condition}, false) as gone,"
                f" coalesce({needless}, false) as needless"
                f" from read_parquet({sql_list(paths)}, hive_partitioning = false, filename = true)"
                f") where gone or needless group by filename"
            ).fetchall()
        except duckdb.Error as error:
            raise StoreUnavailableError(f"reading {spec.name} failed: {error}") from error
    gone = {path.removeprefix(f"{table.uri}/"): rows for path, rows in found}
    columns = (snapshot.actions[n].to_pylist() for n in ("path", "size_bytes", "num_records"))
    days = snapshot.actions[f"partition.{spec.partition_by}"].to_pylist()
    live = [
        Match(path, day, size, rows, gone[path])
        for path, size, rows, day in zip(*columns, days, strict=True)
        if path in gone
    ]
    return sorted(live, key=lambda match: (match.day, match.path))


def _stubbed(name: str) -> str:
    if name in STUB_COLUMNS:
        return name
    left = f"'{blocks.DELETED}'" if name == "verdict" else "null"
    return f"case when gone then {left} else {name} end as {name}"


def _prefix(path: str) -> str:
    """What the name of a file's replacement begins with: it is what the file was, but not landed."""
    first, dash, _ = PurePosixPath(path).name.partition("-")
    return MERGED if first + dash == LANDED else first + dash


def _options(spec: TableSpec, name: str) -> dict[str, Any]:
    """Files of the warm and cold tiers stay as small as others of them."""
    if name.startswith((WARM, COLD)):
        return archive_options(spec, _ARCHIVE_LEVEL)
    return writer_options(spec)


def _chunks(found: Sequence[Match]) -> Iterator[list[Match]]:
    chunk: list[Match] = []
    for match in found:
        full = len(chunk) == _CHUNK_FILES or sum(m.size for m in chunk) + match.size > _CHUNK_BYTES
        if chunk and full:
            yield chunk
            chunk = []
        chunk.append(match)
    if chunk:
        yield chunk
