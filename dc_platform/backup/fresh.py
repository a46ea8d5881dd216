"""An empty lake from a backup: all tables, and the registry where there is none.

The tables come into a directory beside the lake's, which then takes the lake's place: there is all of
it or nothing. Offsets are those of the backup, so landing goes on from there with what Kafka still has.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dc_platform.backup.store import Backups, Manifest, copy
from dc_platform.contracts.tables import TABLES
from dc_platform.errors import ConfigurationError, StoreUnavailableError
from dc_platform.lake.store import Lake
from dc_platform.points import Point, Reached, unarmed
from dc_platform.registry.copying import REGISTRY_FILE, sqlite_file


def is_empty(lake: Lake) -> bool:
    """Whether the lake has no table at all."""
    return not any(lake.exists(spec) for spec in TABLES)


def fill(lake: Lake, backups: Backups, manifest: Manifest, *, reached: Reached = unarmed) -> None:
    """Put the tables of a backup where the empty lake is to be.

    Raises StoreUnavailableError when the backup lacks a file, or has another one.
    """
    place = Path(lake.uri)
    beside = place.with_name(f"{place.name}.restoring")
    try:
        # Of a restore that was killed.
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(backups.lake(manifest.name), beside)
        specs = {spec.name: spec for spec in TABLES}
        for table, of in manifest.tables.items():
            path = specs[table].path if table in specs else table.replace(".", "/")
            for name, kept in of.files.items():
                if copy(str(backups.files(path) / name), beside / path / name) != kept.sha256:
                    raise StoreUnavailableError(
                        f"{table}: {name} of the backup is damaged: take another backup"
                        " (dcp backup verify tells)"
                    )
        reached(Point.LAKE_COPIED)
        if place.exists():
            _remove_empty(place)
        beside.rename(place)
        reached(Point.LAKE_RESTORED)
    except OSError as error:
        raise StoreUnavailableError(f"filling {place} failed: {error}; run it again") from error


def _remove_empty(place: Path) -> None:
    """Directories without a file in them."""
    if any(path.is_file() for path in place.rglob("*")):
        raise ConfigurationError(f"{place} has no table, but files: move it away and try again")
    shutil.rmtree(place)


def fill_registry(url: str, backups: Backups, manifest: Manifest) -> bool:
    """Put the backup's registry where there is none; whether it was put there."""
    path, kept = sqlite_file(url), backups.directory(manifest.name) / REGISTRY_FILE
    if path is None or path.exists() or not kept.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    shutil.copyfile(kept, new)
    new.replace(path)
    return True
