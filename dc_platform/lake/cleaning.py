"""What a lake no longer needs: old log entries, replaced files, leftovers of crashes.

**Log entries** go by number: the newest `keep` commits stay, and the checkpoint before them. The age
that Delta's own clean-up goes by does not bound them (30 days of a commit per second are 2,600,000
files), and on a local disk each commit and each look at the table lists all of them: 1.5 µs each,
three times per commit. Offsets (txns), properties and live files are in every checkpoint.

**Files** that no version since `delta.deletedFileRetentionDuration` has are deleted: those that
compaction or a backfill replaced, and those that a crash left behind, once they are as old. Nothing
is committed for it, so no writer ever conflicts with it.
"""

from __future__ import annotations

import re
import time
from pathlib import PurePosixPath
from typing import NamedTuple

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.origins import FOLDER
from dc_platform.lake.payload_index import SUFFIX as INDEX
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable

_LOG = "_delta_log"
# A reader that is a whole minute behind 3 commits a second still finds what it listed.
_OTHER_TABLES = 200
_VERSION = re.compile(r"_delta_log/(\d{20})\.")
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint\.parquet")


class Cleaned(NamedTuple):
    """What was deleted from a table, and how many files and bytes are live."""

    log_entries: int
    files: int
    bytes: int
    live_files: int
    live_bytes: int


def entries_kept(spec: TableSpec, log_commits: int) -> int:
    """How many commits stay in a table's log.

    The audits read 2,000 of silver's. Of the others 50 are read at most: by a writer that looks for its
    commit after an error of the store, and for what the ledger has seen.
    """
    return log_commits if spec is SILVER_EVENTS else min(log_commits, _OTHER_TABLES)


def clean(lake: Lake, spec: TableSpec, *, keep: int) -> Cleaned:
    """Delete what a table no longer needs. Safe at any time, beside any writer."""
    table = LakeTable(lake, spec)
    entries = expire_log(lake, spec, keep=keep)
    files, size = _vacuum(lake, spec)
    more, more_bytes = _leftovers_beside(lake, spec, table.keeps_seconds)
    files, size = files + more, size + more_bytes
    snapshot = table.snapshot()
    return Cleaned(entries, files, size, len(snapshot.actions), snapshot.bytes)


def expire_log(lake: Lake, spec: TableSpec, *, keep: int) -> int:
    """Delete log entries before the newest checkpoint that has `keep` commits after it; returns how
    many files that were.
    """
    paths = [entry.path for entry in lake.listing(spec, _LOG)]
    versions = {path: int(found[1]) for path in paths if (found := _VERSION.match(path))}
    newest = max(versions.values(), default=0)
    checkpoints = [int(found[1]) for path in paths if (found := _CHECKPOINT.fullmatch(path))]
    first = max((v for v in checkpoints if v <= newest - keep), default=0)
    # From the oldest on: what is left is a log without holes at every moment.
    expired = sorted(path for path, version in versions.items() if version < first)
    for path in expired:
        lake.remove(spec, path)
    return len(expired)


def _vacuum(lake: Lake, spec: TableSpec) -> tuple[int, int]:
    try:
        # Of each run delta-rs would commit a start and an end, which exact commits collide with.
        # `full`: a checkpoint forgets a file as soon as it may be deleted.
        paths = DeltaTable(lake.uri_of(spec)).vacuum(dry_run=True, full=True)
    except (DeltaError, OSError) as error:
        raise StoreUnavailableError(f"vacuum of {spec.name} failed: {error}") from error
    sizes = {entry.path: entry.size for entry in lake.listing(spec, deep=True)}
    for path in paths:
        lake.remove(spec, path)
    return len(paths), sum(sizes.get(path, 0) for path in paths)


def remove_replaced(lake: Lake, spec: TableSpec) -> int:
    """Delete the files that newer versions have replaced, however short a time ago, with what was kept
    beside them; returns how many files. Whoever reads an older version then fails.

    What writers have not committed yet stays.
    """
    try:
        paths = DeltaTable(lake.uri_of(spec)).vacuum(
            retention_hours=0, dry_run=True, enforce_retention_duration=False
        )
    except (DeltaError, OSError) as error:
        raise StoreUnavailableError(f"vacuum of {spec.name} failed: {error}") from error
    for path in paths:
        lake.remove(spec, path)
        for suffix in (".ids", INDEX):
            lake.remove(spec, f"{FOLDER}/{PurePosixPath(path).name}{suffix}")
    return len(paths)


def _leftovers_beside(lake: Lake, spec: TableSpec, age_seconds: int) -> tuple[int, int]:
    """What was kept beside data files that are gone."""
    oldest = time.time() - age_seconds
    beside = lake.listing(spec, FOLDER)
    if not beside:
        return 0, 0
    entries = lake.listing(spec, deep=True)
    there = {_name(e.path) for e in entries if e.path.endswith(".parquet")}
    # An index is made of a live file: without its file it is of no use, however young it is.
    gone = [e for e in beside if _name(e.path) not in there]
    left = [e for e in gone if e.modified < oldest or e.path.endswith(INDEX)]
    for entry in left:
        lake.remove(spec, entry.path)
    return len(left), sum(entry.size for entry in left)


def _name(path: str) -> str:
    return PurePosixPath(path).name.split(".")[0]
