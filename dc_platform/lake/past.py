"""A table as it was at an older version, as far back as it still can be read.

Two things end a version: its entry leaves the log (`DCP_LOG_COMMITS`), or a file of it that newer
versions have replaced is deleted (`DCP_REMOVED_FILES_MINUTES`).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import ConfigurationError, PlatformError, StoreUnavailableError
from dc_platform.lake.log_entries import committed_at, oldest_whole, version_at
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot


class NoSuchVersionError(PlatformError):
    """The version cannot be read; the message says which can."""


def version_until(lake: Lake, spec: TableSpec, at: datetime) -> int:
    """The newest version that was committed until `at`; raises NoSuchVersionError."""
    try:
        return version_at(lake, spec, at)
    except ConfigurationError:
        raise _unreadable(lake, spec, f"the state of {at.isoformat()}") from None


def snapshot_at(lake: Lake, spec: TableSpec, version: int) -> Snapshot:
    """The table's files at a version; raises NoSuchVersionError."""
    # delta-rs looks for a version that is not there yet entry by entry, for minutes.
    if not lake.has(spec, f"_delta_log/{version:020}.json"):
        raise _unreadable(lake, spec, f"version {version}")
    try:
        return LakeTable(lake, spec, version).snapshot()
    except StoreUnavailableError as error:
        raise _unreadable(lake, spec, f"version {version}") from error


def check_files(lake: Lake, spec: TableSpec, past: Snapshot, live: Collection[str]) -> None:
    """Raises NoSuchVersionError when a file of `past` is gone; `live` are paths that are there."""
    root = f"{past.root}/"
    replaced = [path for path in past.paths if path not in live]
    if not all(lake.has(spec, path.removeprefix(root)) for path in replaced):
        raise _unreadable(lake, spec, f"version {past.version}")


def _unreadable(lake: Lake, spec: TableSpec, what: str) -> NoSuchVersionError:
    oldest, newest = oldest_whole(lake, spec), LakeTable(lake, spec).version
    since = committed_at(lake, spec, oldest).isoformat(timespec="milliseconds")
    return NoSuchVersionError(
        f"{spec.name} can be asked as of version {oldest} ({since}) to {newest}, not as of {what}:"
        " older log entries and replaced files are gone (DCP_LOG_COMMITS, DCP_REMOVED_FILES_MINUTES)"
    )
