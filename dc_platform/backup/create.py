"""A consistent copy of the lake: all tables as they belong to one version of silver.

The order makes it consistent, nothing stands still meanwhile. What follows from silver (gold, the
border, the ledger) is taken before it, and covers no more than it; then silver; then what silver
follows from (bronze, quarantine, gaps, acknowledgements), which covers no less. That is the state after
a crash between two commits, which landing goes on from: what silver lacks of bronze it reads again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dc_platform.backup.store import Backups, Kept, Manifest, TableCopy, copy, sha256_of
from dc_platform.contracts.ops_tables import LANDING_BORDER, LEDGER
from dc_platform.contracts.tables import SILVER_EVENTS, TABLES, TableSpec
from dc_platform.errors import CommitConflictError, ConfigurationError, StoreUnavailableError
from dc_platform.lake.log_entries import log_files
from dc_platform.lake.moment import Moment, moment
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.points import Point, Reached, unarmed
from dc_platform.registry.copying import REGISTRY_FILE, copy_registry

_AFTER_SILVER = 2
_TRIES = 3


def order(spec: TableSpec) -> int:
    """0: taken before silver, as it follows from it; 1: silver; 2: after it."""
    if spec is SILVER_EVENTS:
        return 1
    return 0 if spec.layer == "gold" or spec in (LANDING_BORDER, LEDGER) else _AFTER_SILVER


class _Source(NamedTuple):
    lake: Lake
    backups: Backups
    name: str
    known: Mapping[str, Mapping[str, Kept]]


def create_backup(
    lake: Lake,
    registry_url: str,
    backups: Backups,
    *,
    keep: int = 0,
    reached: Reached = unarmed,
) -> Manifest:
    """Copy the lake and the registry; then only the newest `keep` backups stay (0: all).

    Raises StoreUnavailableError when a file is gone before it was copied: what was copied stays for the
    next try.
    """
    if not lake.exists(SILVER_EVENTS):
        raise ConfigurationError(f"{lake.uri} has no silver.events: there is nothing to copy yet")
    with backups.writing():
        created = datetime.now(UTC)
        pinned = _pin(lake)
        silver = pinned[SILVER_EVENTS.name]
        name = f"{created:%Y%m%dT%H%M%SZ}-v{silver.version}"
        known: dict[str, Mapping[str, Kept]] = {}
        for earlier in reversed(backups.list()):
            for table, of in earlier.tables.items():
                known[table] = {**known.get(table, {}), **of.files}
        source = _Source(lake, backups, name, known)
        directory = backups.directory(name)
        if directory.exists():
            # Of this second, by a process that was killed, or whole.
            raise CommitConflictError(f"there is a backup {name} already: try again")
        directory.mkdir(parents=True)
        tables, new_files, new_bytes = {}, 0, 0
        for table, at in pinned.items():
            tables[table], files, size = _copy_table(source, at)
            new_files, new_bytes = new_files + files, new_bytes + size
        registry = copy_registry(registry_url, directory / REGISTRY_FILE)
        reached(Point.BACKUP_COPIED)
        manifest = Manifest(
            name,
            created.isoformat(timespec="milliseconds"),
            silver.committed_at.isoformat(timespec="milliseconds"),
            tables,
            registry,
            new_files,
            new_bytes,
        )
        backups.put(manifest)
        reached(Point.BACKUP_WRITTEN)
        backups.keep(keep)
        return manifest


def _pin(lake: Lake) -> dict[str, Moment]:
    """The tables' moments, in the order that makes them consistent."""
    found = {}
    for spec in sorted(TABLES, key=order):
        if lake.exists(spec):
            found[spec.name] = _newest(lake, spec)
    return found


def _newest(lake: Lake, spec: TableSpec) -> Moment:
    for _ in range(_TRIES):
        try:
            return moment(lake, spec, LakeTable(lake, spec).version)
        except ConfigurationError:
            # Cleaned between two looks: a table of many commits keeps few of them.
            time.sleep(0.1)
    raise StoreUnavailableError(f"{spec.name} moves too fast to be copied: try again")


def _copy_table(source: _Source, at: Moment) -> tuple[TableCopy, int, int]:
    """The copy, and how many files and bytes no backup had."""
    _copy_log(source, at)
    known = source.known.get(at.spec.name, {})
    files, new_bytes = {}, 0
    for file in at.files:
        kept, target = known.get(file.path), source.backups.files(at.spec.path) / file.path
        if kept is None or kept.size != file.size or not target.exists():
            digest = _copy_file(f"{at.root}/{file.path}", target, file.size)
            kept = Kept(file.size, digest)
            new_bytes += file.size
            files[file.path] = (kept, True)
        else:
            files[file.path] = (kept, False)
    return (
        TableCopy(
            at.version,
            sum(file.rows for file in at.files),
            at.offsets,
            {path: kept for path, (kept, _) in files.items()},
        ),
        sum(new for _, new in files.values()),
        new_bytes,
    )


def _copy_file(path: str, target: Path, size: int) -> str:
    if target.exists() and target.stat().st_size == size:
        # Of a backup that was never whole.
        return sha256_of(target)
    try:
        return copy(path, target)
    except FileNotFoundError:
        raise StoreUnavailableError(
            f"{path} was deleted before it was copied: try again, what was copied is kept; for a lake"
            " that takes longer to copy than replaced files stay, raise DCP_REMOVED_FILES_MINUTES"
        ) from None
    except OSError as error:
        raise StoreUnavailableError(f"copying {path} failed: {error}") from error


def _copy_log(source: _Source, at: Moment) -> None:
    root = Path(source.backups.lake(source.name)) / at.spec.path
    (root / "_delta_log").mkdir(parents=True)
    for path in log_files(source.lake, at.spec, at.version):
        try:
            shutil.copyfile(f"{at.root}/{path}", root / path)
        except FileNotFoundError:
            # The oldest go while we look. What the version needs is checked below.
            continue
    copied = Lake(source.backups.lake(source.name))
    if len(moment(copied, at.spec, at.version).files) != len(at.files):
        raise StoreUnavailableError(f"the log of {at.spec.name} changed while it was copied")
