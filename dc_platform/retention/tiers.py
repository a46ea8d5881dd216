"""Hot, warm and cold (design 6.3): files of old events, written anew for storage that is cheaper.

A file's tier is told by its name. Hot is what landing and compaction write; the files of an ingest date
whose events are all older than DCP_TIER_HOT_DAYS become few `warm-` files, with stronger compression,
put in order by event type, source and time. Events of a type that its policy archives (or older than
DCP_TIER_WARM_DAYS) go to `cold-` files in the directory `cold/` of the table, which may be a mount of
other storage. All of them are files of the same Delta table: every engine reads them as before.

The commits change no data: offsets stay, and who knows the identities of the files that were rewritten
knows those of the new ones. Bronze keeps the order of addresses, which rebuilds read it in; put in
another it would take the same room.
"""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from dc_platform.contracts.floors import EVERY_TYPE
from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.parquet import DataFile, archive_options, needle_options
from dc_platform.lake.rewrite import (
    COLD,
    SORT_MEMORY_MB,
    WARM,
    batch_rows,
    can_sort,
    look_at,
    write_rows,
)
from dc_platform.lake.scratch import scratch
from dc_platform.lake.sql import files_sql
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot, sql_list, sql_text
from dc_platform.lake.turns import Turns
from dc_platform.points import Point, Reached, unarmed
from dc_platform.registry.retention import Policy
from dc_platform.retention.commit import drop, keep_beside, put_in_place
from dc_platform.retention.conditions import AGED, Aged
from dc_platform.settings import Settings

METADATA = "dcp.tier"
# The directory of cold files. Its name has no `=`: DuckDB takes those of all files of a table for the
# same partition columns.
COLD_FOLDER = "cold"
# Of warm and cold files; the others by address.
WARM_ORDER = {SILVER_EVENTS.name: "event_type, source_id, event_time"}
_ADDRESS = "topic_id, kafka_partition, kafka_offset, kafka_index"


class Tier(StrEnum):
    """Of a file."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


def tier_of(path: str) -> Tier:
    """The tier that a file lies in."""
    name = PurePosixPath(path).name
    if name.startswith(COLD):
        return Tier.COLD
    return Tier.WARM if name.startswith(WARM) else Tier.HOT


@dataclass(frozen=True)
class Borders:
    """Ages (days) at which events get into a tier. `cold` is by tenant and type; None: `warm_days`."""

    hot_days: float
    warm_days: float
    policies: Sequence[Policy] = ()

    @classmethod
    def of(cls, settings: Settings, policies: Sequence[Policy]) -> Borders:
        """As the settings and the policies say."""
        return cls(settings.tier_hot_days, settings.tier_warm_days, policies)

    def archived(self, aged: Aged, age_days: float) -> str | None:
        """The condition on rows of that age to be cold; None: no row is."""
        cold = [policy for policy in self.policies if policy.archive_after_days <= age_days]
        parts = []
        own: defaultdict[str, list[Policy]] = defaultdict(list)
        for policy in self.policies:
            own[policy.tenant_id].append(policy)
        for policy in cold:
            tenant = f"tenant_id = {sql_text(policy.tenant_id)}"
            others = [p.data_type for p in own[policy.tenant_id] if p.data_type != EVERY_TYPE]
            if policy.data_type == EVERY_TYPE:
                parts.append(tenant + _not_among(aged, others))
            elif aged.event_type is not None:
                parts.append(f"{tenant} and {aged.event_type} = {sql_text(policy.data_type)}")
        if self.warm_days <= age_days:
            # Of tenants and types that no policy speaks of.
            for tenant_id, members in own.items():
                named = [policy.data_type for policy in members]
                if EVERY_TYPE not in named:
                    parts.append(f"tenant_id = {sql_text(tenant_id)}" + _not_among(aged, named))
            known = ", ".join(sql_text(tenant_id) for tenant_id in own)
            parts.append(f"tenant_id not in ({known})" if known else "true")
        return " or ".join(f"({part})" for part in parts) or None


def _not_among(aged: Aged, types: Sequence[str]) -> str:
    if aged.event_type is None or not types:
        return ""
    listed = ", ".join(sql_text(name) for name in types)
    # Rejected events have no type.
    return f" and ({aged.event_type} is null or {aged.event_type} not in ({listed}))"


class File(NamedTuple):
    """A live file; `newest` is the time of its newest event."""

    path: str
    size: int
    rows: int
    newest: datetime
    tier: Tier


@dataclass(frozen=True)
class Move:
    """Files of an ingest date that are written anew: rows that are `archived` (a condition; None: no
    row) become cold, the others warm.
    """

    aged: Aged
    day: date
    files: tuple[File, ...]
    archived: str | None
    cold_rows: int

    @property
    def rows(self) -> int:
        """Of all files."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def live_files(snapshot: Snapshot, aged: Aged) -> dict[date, list[File]]:
    """Ingest date → its live files."""
    found: defaultdict[date, list[File]] = defaultdict(list)
    if not snapshot.paths:
        return found
    columns = (snapshot.actions[n].to_pylist() for n in ("path", "size_bytes", "num_records"))
    days = snapshot.actions[f"partition.{aged.spec.partition_by}"].to_pylist()
    newest, received = (snapshot.bounds(name)[1].to_pylist() for name in (aged.time, "received_at"))
    for path, size, rows, day, event, receipt in zip(*columns, days, newest, received, strict=True):
        at = event or receipt
        if at is not None:
            found[day].append(File(path, size, rows, at, tier_of(path)))
    return found


def moves(table: LakeTable, aged: Aged, borders: Borders, now: datetime) -> Iterator[Move]:
    """What has to be written anew at `now`, the oldest ingest date first."""
    for day, files in sorted(live_files(table.snapshot(), aged).items()):
        # The day is over, and what was begun in it is committed.
        if now < datetime(day.year, day.month, day.day, tzinfo=now.tzinfo) + timedelta(hours=25):
            continue
        age = (now - max(file.newest for file in files)) / timedelta(days=1)
        open_files = [file for file in files if file.tier is not Tier.COLD]
        archived = borders.archived(aged, age)
        if archived is not None and open_files:
            counts = _count(table, open_files, archived)
            chosen = tuple(file for file in open_files if counts.get(file.path))
            if chosen:
                yield Move(aged, day, chosen, archived, sum(counts.values()))
                continue
        hot = tuple(file for file in open_files if file.tier is Tier.HOT)
        if hot and age >= borders.hot_days:
            yield Move(aged, day, hot, None, 0)


def _count(table: LakeTable, files: Sequence[File], condition: str) -> dict[str, int]:
    """Path → rows for which it holds, but for files without such."""
    paths = [f"{table.uri}/{file.path}" for file in files]
    with _reading(table.spec), scratch(threads=1) as connection:
        found = connection.execute(
            f"select filename, count(*) from read_parquet({sql_list(paths)},"
            f" hive_partitioning = false, filename = true) where {condition} group by filename"
        ).fetchall()
    return {path.removeprefix(f"{table.uri}/"): rows for path, rows in found}


@dataclass(frozen=True)
class Moved:
    """What a move made: (tier, rows, bytes) of the new files; `before`: bytes of the old ones."""

    spec: TableSpec
    day: date
    before: int
    after: tuple[tuple[Tier, int, int], ...]


class Tiers:
    """Moves old files of a lake to their tiers."""

    def __init__(
        self,
        lake: Lake,
        borders: Borders,
        *,
        levels: Mapping[Tier, int],
        file_bytes: int,
        reached: Reached = unarmed,
    ) -> None:
        self._lake = lake
        self._borders = borders
        self._levels = levels
        self._file_bytes = file_bytes
        self._reached = reached
        self._turns = Turns(lake, SILVER_EVENTS)

    def run(self, now: datetime) -> list[Moved]:
        """Move what is due; what a backfill replaces meanwhile is left to the next run."""
        done = []
        for aged in AGED:
            if not self._lake.exists(aged.spec):
                continue
            table = LakeTable(self._lake, aged.spec)
            for move in list(moves(table, aged, self._borders, now)):
                for piece in self._pieces(move):
                    moved = self._move(table, piece)
                    if moved is not None:
                        done.append(moved)
        return done

    def _pieces(self, move: Move) -> Iterator[Move]:
        """Of at most the target size, but for single files."""
        held: list[File] = []
        for file in sorted(move.files, key=lambda file: (file.newest, file.path)):
            if held and sum(f.size for f in held) + file.size > self._file_bytes:
                yield Move(move.aged, move.day, tuple(held), move.archived, move.cold_rows)
                held = []
            held.append(file)
        yield Move(move.aged, move.day, tuple(held), move.archived, move.cold_rows)

    def _move(self, table: LakeTable, move: Move) -> Moved | None:
        parts = [(Tier.WARM, "true")]
        if move.archived is not None:
            archived = f"coalesce({move.archived}, false)"
            parts = [(Tier.COLD, archived), (Tier.WARM, f"not {archived}")]
        written: list[tuple[Tier, DataFile]] = []
        old = [file.path for file in move.files]
        try:
            for tier, where in parts:
                file = self._write(table, move, tier, where)
                if file is not None:
                    written.append((tier, file))
        except BaseException:
            drop(self._lake, table.spec, [file for _, file in written])
            raise
        self._reached(Point.TIER_WRITTEN)
        files = [file for _, file in written]
        said = {
            "files": len(old),
            "rows": move.rows,
            "bytes": [move.bytes, sum(f.size for f in files)],
        }
        metadata = {METADATA: json.dumps({**said, "tiers": [tier.value for tier, _ in written]})}
        if not put_in_place(table, self._turns, old, files, metadata=metadata, changes_data=False):
            drop(self._lake, table.spec, files)
            return None
        self._reached(Point.TIER_COMMITTED)
        after = tuple((tier, file.rows, file.size) for tier, file in written)
        return Moved(table.spec, move.day, move.bytes, after)

    def _write(self, table: LakeTable, move: Move, tier: Tier, where: str) -> DataFile | None:
        spec = table.spec
        of_day = f"{spec.partition_by}={move.day.isoformat()}"
        path = f"{of_day}/{WARM}{uuid.uuid4()}.parquet"
        if tier is Tier.COLD:
            path = f"{COLD_FOLDER}/{of_day}/{COLD}{uuid.uuid4()}.parquet"
        old = [file.path for file in move.files]
        seen = look_at(table.uri, old, spec)
        order = ""
        if can_sort(seen.row_bytes):
            order = (
                f" order by {WARM_ORDER[spec.name]}, {_ADDRESS}" if spec.name in WARM_ORDER else ""
            )
            order = order or f" order by {_ADDRESS}"
        memory = f"{SORT_MEMORY_MB}MiB"
        with _reading(spec), scratch(memory=memory, threads=1) as connection:
            names = ", ".join(spec.file_schema.names)
            paths = [f"{table.uri}/{path}" for path in old]
            rows = files_sql(spec, paths, seen.lacking, "hive_partitioning = false", columns=names)
            reader = connection.execute(
                f"select * from ({rows}) where {where}{order}"
            ).to_arrow_reader(batch_rows(seen.row_bytes))
            pieces = (pa.Table.from_batches([b]).cast(spec.file_schema) for b in reader)
            options = archive_options(spec, self._levels[tier])
            options |= needle_options(spec, seen.rows)
            file = write_rows(self._lake, spec, path, move.day, pieces, options=options)
        if not file.rows:
            self._lake.remove(spec, path)
            return None
        keep_beside(table, file, old)
        return file


@contextmanager
def _reading(spec: TableSpec) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        raise StoreUnavailableError(f"moving files of {spec.name} failed: {error}") from error


def bytes_by_tier(lake: Lake) -> list[dict[str, Any]]:
    """Rows, files and bytes of each table and tier."""
    rows = []
    for aged in AGED:
        if not lake.exists(aged.spec):
            continue
        files = live_files(LakeTable(lake, aged.spec).snapshot(), aged)
        for tier in Tier:
            mine = [file for of_day in files.values() for file in of_day if file.tier is tier]
            figures = {"rows": sum(f.rows for f in mine), "files": len(mine)}
            rows.append(
                {"table": aged.spec.name, "tier": tier.value, **figures}
                | {"bytes": sum(file.size for file in mine)}
            )
    return rows
