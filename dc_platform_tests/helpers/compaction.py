"""Compaction without waiting: each step begins what is next and, once it is merged, commits it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.landing.commits import Committer
from dc_platform.landing.compaction import Compactor
from dc_platform.landing.compaction_plan import CompactionPolicy
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import CLOCK

TABLES = (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE)
SMALL = CompactionPolicy(target_bytes=1 << 20, tier_files=2)
# Epoch seconds: while the tests' ingest hour is open, and when it has closed.
OPEN = CLOCK.timestamp() + 60
CLOSED = CLOCK.timestamp() + 2 * 3600


def compactor(
    lake: Lake,
    writer: Committer,
    *,
    now: float = CLOSED,
    policy: CompactionPolicy = SMALL,
    reached: Callable[[str], None] = lambda point: None,
) -> Compactor:
    """Compacts what `writer` lands."""
    return Compactor(
        lake,
        policy,
        writer.identity_files,
        log_commits=100_000,
        keep_seconds=3600,
        clock=lambda: now,
        reached=reached,
    )


def merge(made: Compactor, writer: Committer, *, behind: bool = False) -> bool:
    """Begin a merge and wait until it is ready to be committed; False when there is none to do."""
    made._next_look, made._next_clean = 0.0, float("inf")
    made.step(writer, behind=behind)
    if made._work is None:
        return False
    wait([made._work])
    return True


def compact_all(lake: Lake, writer: Committer, **more: Any) -> int:
    """Compact until nothing is left to do; gives the number of commits."""
    made = compactor(lake, writer, **more)
    while merge(made, writer):
        pass
    made.close()
    return made.commits


def snapshot(lake: Lake, spec: TableSpec) -> Snapshot:
    """The newest snapshot."""
    return LakeTable(lake, spec).snapshot()


def rows(lake: Lake, spec: TableSpec) -> list[tuple[Any, ...]]:
    """All columns of all rows, in one order."""
    return sorted(read_table(lake, spec), key=repr)
