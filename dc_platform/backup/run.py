"""A restore from its beginning to its end: which moment, which tables, in which order."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import NamedTuple

from dc_platform.backup.fresh import fill, fill_registry, is_empty
from dc_platform.backup.mend import Mended, mend
from dc_platform.backup.quiet import landing_stopped
from dc_platform.backup.restore import Restored, restore_silver
from dc_platform.backup.store import Backups, Manifest
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TableSpec
from dc_platform.errors import ConfigurationError
from dc_platform.lake.log_entries import committed_at, version_at
from dc_platform.lake.moment import Moment, moment
from dc_platform.lake.store import Lake
from dc_platform.points import Reached, armed
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.leases import Leases
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

# What a restore can be asked for. Silver last: landing may go on from it at once.
RESTORABLE = (BRONZE_EVENTS, SILVER_QUARANTINE, SILVER_EVENTS)


class Done(NamedTuple):
    """What a restore did: filled an empty lake from a backup, or changed tables in place."""

    filled: Manifest | None
    registry: bool
    mended: list[Mended]
    silver: Restored | None


def backups_of(configured: Settings) -> Backups:
    """The directory of backups; raises ConfigurationError when there is none."""
    if configured.backups is None:
        raise ConfigurationError("DCP_BACKUP_URI names no directory for backups: set it")
    return Backups(configured.backups)


def restore(configured: Settings, to: str, tables: list[str]) -> Done:
    """Restore to `to`: a time (ISO 8601), a version of silver.events, or the name of a backup.

    An empty lake is filled from a backup, whatever `tables` says; else these are restored in place.
    """
    lake, reached = Lake(configured.lake), armed(configured.crash_at)
    manifest = _backup(configured, to)
    if manifest is not None and is_empty(lake):
        backups = backups_of(configured)
        registry = fill_registry(configured.registry, backups, manifest)
        fill(lake, backups, manifest, reached=reached)
        return Done(manifest, registry, [], None)
    specs = _specs(tables)
    migrate(configured.registry)
    leases = Leases(Database(configured.registry), stale_seconds=configured.lease_stale_seconds)
    with landing_stopped(leases, configured.landing_slots, f"restore-{os.getpid()}"):
        moments = [_moment(configured, lake, spec, to, manifest) for spec in specs]
        return _in_place(lake, moments, reached)


def _in_place(lake: Lake, moments: list[Moment], reached: Reached) -> Done:
    mended, silver = [], None
    for at in moments:
        log.info("%s to version %d of %s", at.spec.name, at.version, at.committed_at)
        if at.spec is SILVER_EVENTS:
            silver = restore_silver(lake, at, reached=reached)
        else:
            mended.append(mend(lake, at))
    return Done(None, False, mended, silver)


def _specs(tables: list[str]) -> list[TableSpec]:
    unknown = set(tables) - {spec.name for spec in RESTORABLE}
    if unknown:
        names = ", ".join(spec.name for spec in RESTORABLE)
        raise ConfigurationError(f"{unknown.pop()} cannot be restored in place: one of {names}")
    return [spec for spec in RESTORABLE if spec.name in tables]


def _backup(configured: Settings, to: str) -> Manifest | None:
    """The backup of that name; None when `to` is a time or a version."""
    if to.isdigit() or _time(to) is not None:
        return None
    return backups_of(configured).get(to)


def _moment(
    configured: Settings, lake: Lake, spec: TableSpec, to: str, manifest: Manifest | None
) -> Moment:
    if manifest is not None:
        backups = backups_of(configured)
        if spec.name not in manifest.tables:
            raise ConfigurationError(f"the backup {manifest.name} has no {spec.name}")
        copied = Lake(backups.lake(manifest.name))
        root = str(backups.files(spec.path))
        return moment(copied, spec, manifest.tables[spec.name].version, root=root)
    if not lake.exists(spec):
        raise ConfigurationError(f"{lake.uri} has no {spec.name}: restore from a backup")
    at = _time(to)
    if at is None and spec is SILVER_EVENTS:
        return moment(lake, spec, int(to))
    # Of a version of silver the others' are those of its time: they are committed before it.
    return moment(
        lake, spec, version_at(lake, spec, at or committed_at(lake, SILVER_EVENTS, int(to)))
    )


def _time(text: str) -> datetime | None:
    """A time that says its zone, or is in UTC; None when the text is none."""
    if text.isdigit():
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
