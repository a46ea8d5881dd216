"""Is a backup what its manifest says? Each file is there, whole and unchanged, and named by its log."""

from __future__ import annotations

from dc_platform.backup.store import Backups, sha256_of
from dc_platform.contracts.tables import TABLES
from dc_platform.errors import PlatformError
from dc_platform.lake.moment import moment
from dc_platform.lake.store import Lake

_MOST = 20


def verify(backups: Backups, name: str) -> list[str]:
    """What is wrong with a backup, 20 findings at most; reads every byte of it."""
    manifest = backups.get(name)
    lake = Lake(backups.lake(name))
    specs = {spec.name: spec for spec in TABLES}
    wrong: list[str] = []
    for table, copy in manifest.tables.items():
        if len(wrong) >= _MOST:
            break
        spec = specs.get(table)
        if spec is None:
            wrong.append(f"{table}: this version of the platform does not know the table")
            continue
        try:
            named = {file.path for file in moment(lake, spec, copy.version).files}
        except PlatformError as error:
            wrong.append(f"{table}: its log cannot be read: {error}")
            continue
        if named != set(copy.files):
            wrong.append(f"{table}: its log names other files than the manifest")
        for path, kept in copy.files.items():
            file = backups.files(spec.path) / path
            if not file.exists():
                wrong.append(f"{table}: {path} is missing")
            elif file.stat().st_size != kept.size or sha256_of(file) != kept.sha256:
                wrong.append(f"{table}: {path} has changed")
    return wrong[:_MOST]
