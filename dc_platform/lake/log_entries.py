"""A table's log as it lies on disk: when each version was committed, and all offsets of one.

delta-rs tells the offset of an app id that one names, but not which there are; and its history numbers
commits wrongly while others commit. Both are for restores and backups, which are rare: 2,000 entries
are read in 0.1 s.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pyarrow.parquet as pq

from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import ConfigurationError, StoreUnavailableError
from dc_platform.lake.store import Lake

LOG = "_delta_log"
_ENTRY = re.compile(rf"{LOG}/(\d{{20}})\.json")
_CHECKPOINT = re.compile(rf"{LOG}/(\d{{20}})\.checkpoint\.parquet")


def log_files(lake: Lake, spec: TableSpec, version: int) -> list[str]:
    """Entries and checkpoints up to `version`, relative to the table: its log as it was then."""
    entries, checkpoints = _listed(lake, spec)
    return [path for of in (checkpoints, entries) for v, path in sorted(of.items()) if v <= version]


def version_at(lake: Lake, spec: TableSpec, at: datetime) -> int:
    """The newest version that was committed until `at`; raises ConfigurationError when the log does
    not reach back so far.
    """
    entries, _ = _listed(lake, spec)
    times = {v: _committed_at(lake, spec, path) for v, path in sorted(entries.items())}
    until = [version for version, committed in times.items() if committed <= at]
    if not until:
        oldest = min(times.values(), default=None)
        raise ConfigurationError(
            f"the log of {spec.name} begins at {oldest}, after {at}: restore from a backup"
            " (dcp backup list)"
        )
    return max(until)


def oldest_whole(lake: Lake, spec: TableSpec) -> int:
    """The oldest version that the log tells of and whose files are all there: those that newer versions
    have replaced are deleted some time later.
    """
    entries, checkpoints = _listed(lake, spec)
    first = 0 if 0 in entries else min(checkpoints, default=max(entries, default=0))
    there = {entry.path for entry in lake.listing(spec, deep=True)}
    for version in sorted((v for v in entries if v > first), reverse=True):
        for action in _actions(lake, spec, entries[version]):
            if "remove" in action and unquote(action["remove"]["path"]) not in there:
                return version
    return first


def committed_at(lake: Lake, spec: TableSpec, version: int) -> datetime:
    """When a version was committed."""
    entries, _ = _listed(lake, spec)
    if version not in entries:
        raise StoreUnavailableError(f"version {version} is no longer in the log of {spec.name}")
    return _committed_at(lake, spec, entries[version])


def offsets_at(lake: Lake, spec: TableSpec, version: int) -> dict[str, int]:
    """App id → what it last committed, of all app ids at a version."""
    entries, checkpoints = _listed(lake, spec)
    first = max((v for v in checkpoints if v <= version), default=-1)
    found: dict[str, int] = {}
    if first >= 0:
        column = pq.read_table(f"{lake.uri_of(spec)}/{checkpoints[first]}", columns=["txn"])["txn"]
        found = {txn["appId"]: txn["version"] for txn in column.to_pylist() if txn is not None}
    for number in range(first + 1, version + 1):
        if number not in entries:
            raise StoreUnavailableError(f"version {number} is no longer in the log of {spec.name}")
        for action in _actions(lake, spec, entries[number]):
            if "txn" in action:
                found[action["txn"]["appId"]] = action["txn"]["version"]
    return found


def _listed(lake: Lake, spec: TableSpec) -> tuple[dict[int, str], dict[int, str]]:
    """Version → path, of entries and of checkpoints."""
    paths = [entry.path for entry in lake.listing(spec, LOG)]
    entries, checkpoints = (
        {int(match[1]): path for path in paths if (match := pattern.fullmatch(path))}
        for pattern in (_ENTRY, _CHECKPOINT)
    )
    return entries, checkpoints


def _committed_at(lake: Lake, spec: TableSpec, path: str) -> datetime:
    for action in _actions(lake, spec, path):
        if "commitInfo" in action:
            return datetime.fromtimestamp(action["commitInfo"]["timestamp"] / 1000, UTC)
    raise StoreUnavailableError(f"{path} of {spec.name} does not say when it was committed")


def _actions(lake: Lake, spec: TableSpec, path: str) -> list[dict[str, Any]]:
    content = lake.mapped(spec, path)
    if content is None:
        raise StoreUnavailableError(f"{path} is no longer in the log of {spec.name}: try again")
    return [json.loads(line) for line in bytes(content).splitlines()]
