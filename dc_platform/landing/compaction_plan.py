"""Which files are compacted next. Pure.

Files of one ingest hour are merged in tiers while the hour is open: sixteen times the size is the next
tier, so a byte is rewritten once per tier (four times from 10 kB to 256 MB) and the live files of an
hour stay within some dozens per tier. When the hour has closed, its files are put in order, in pieces
of the target size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from operator import attrgetter
from pathlib import PurePosixPath

import pyarrow as pa

from dc_platform.lake.rewrite import COLD, SORTED, WARM
from dc_platform.lake.table import Snapshot

# Files of one commit: their removals are lines of the log.
_MOST_FILES = 512
_TIER_BITS = 4


@dataclass(frozen=True)
class CompactionPolicy:
    """When files are merged. Sizes in bytes, as they lie in the store; times in seconds."""

    target_bytes: int = 256 * 2**20
    # An ingest hour is an hour; the soak's are shorter.
    hour_seconds: int = 3600
    # A batch that was begun before the hour's end is committed by then.
    grace_seconds: float = 30.0
    # So many files of a tier are merged.
    tier_files: int = 32
    # Beyond so many files compaction does not wait for landing to catch up.
    urgent_files: int = 1_000


@dataclass(frozen=True)
class LiveFile:
    """A live file; `low` and `high` are when its rows were processed, epoch microseconds."""

    path: str
    size: int
    day: date
    low: int
    high: int

    @property
    def in_order(self) -> bool:
        """Whether it came from a closed hour's compaction."""
        return PurePosixPath(self.path).name.startswith(SORTED)


@dataclass(frozen=True)
class Job:
    """Files that become one. `ordered`: of a closed hour."""

    files: tuple[LiveFile, ...]
    ordered: bool

    @property
    def paths(self) -> list[str]:
        """Relative to the table."""
        return [file.path for file in self.files]

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def live_files(snapshot: Snapshot) -> list[LiveFile]:
    """The files of a snapshot that say when their rows were processed, but for those of the warm and
    cold tiers.
    """
    low, high = (_micros(bound) for bound in snapshot.bounds("processed_at"))
    columns = (snapshot.actions[n].to_pylist() for n in ("path", "size_bytes"))
    days = snapshot.actions["partition.ingest_date"].to_pylist()
    rows = zip(*columns, days, low, high, strict=True)
    return [
        LiveFile(*row)
        for row in rows
        if row[3] is not None
        and row[4] is not None
        and not PurePosixPath(row[0]).name.startswith((WARM, COLD))
    ]


def _micros(bound: pa.Array) -> list[int | None]:
    times = bound.cast(pa.timestamp("us", tz="UTC")) if not pa.types.is_null(bound.type) else bound
    found: list[int | None] = times.cast(pa.int64()).to_pylist()
    return found


def next_job(files: Iterable[LiveFile], now: float, policy: CompactionPolicy) -> Job | None:
    """What to merge at `now` (epoch seconds), or None: open hours first, they decide how many files
    a reader meets.
    """
    hour = policy.hour_seconds * 1_000_000
    closed_before = int((now - policy.grace_seconds) * 1_000_000) // hour * hour
    opened: list[LiveFile] = []
    closed: dict[tuple[date, int | None], list[LiveFile]] = defaultdict(list)
    for file in files:
        if file.high >= closed_before:
            opened.append(file)
        else:
            # A backfill's file has rows of many hours: such files are merged among themselves.
            whole = file.low // hour == file.high // hour
            closed[(file.day, file.low // hour if whole else None)].append(file)
    return _fullest_tier(opened, policy) or _unfinished_hour(closed.values(), policy)


def _fullest_tier(files: Sequence[LiveFile], policy: CompactionPolicy) -> Job | None:
    def tier(file: LiveFile) -> tuple[date, int]:
        return file.day, max(1, file.size).bit_length() // _TIER_BITS

    found: list[list[LiveFile]] = []
    for _, members in groupby(sorted(files, key=tier), key=tier):
        small = [file for file in members if file.size < policy.target_bytes // 2]
        if len(small) >= policy.tier_files:
            found.append(_first_piece(small, policy))
    best = max(found, key=len, default=[])
    return Job(tuple(best), ordered=False) if len(best) > 1 else None


def _unfinished_hour(hours: Iterable[Sequence[LiveFile]], policy: CompactionPolicy) -> Job | None:
    for hour in sorted(hours, key=lambda files: min(file.low for file in files)):
        rest = [f for f in hour if not f.in_order or f.size < policy.target_bytes // 2]
        while rest:
            piece = _first_piece(rest, policy)
            if len(piece) > 1 or not piece[0].in_order:
                return Job(tuple(piece), ordered=True)
            rest = [file for file in rest if file not in piece]
    return None


def _first_piece(files: Iterable[LiveFile], policy: CompactionPolicy) -> list[LiveFile]:
    """The oldest files, as many as the target holds; at least one."""
    piece: list[LiveFile] = []
    size = 0
    for file in sorted(files, key=attrgetter("low", "path")):
        if piece and (size + file.size > policy.target_bytes or len(piece) == _MOST_FILES):
            break
        piece.append(file)
        size += file.size
    return piece
