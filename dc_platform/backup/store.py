"""Where backups lie: one directory that many of them share.

    files/<table>/…         data files, each once, whichever backups have it
    backups/<name>/manifest.json   tables, versions, offsets, files with sizes and SHA-256
    backups/<name>/lake/<table>/_delta_log/   the tables' logs as they were
    backups/<name>/registry.db     the registry, where it is SQLite

A data file never changes and its name is used once, so a backup copies only what those before it have
not. A backup is whole when its manifest is there: that is written last, in one go.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from dc_platform.errors import ConfigurationError, RetriableError, StoreUnavailableError

_FILES = "files"
_BACKUPS = "backups"
_MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PIECE = 2**20


class Kept(NamedTuple):
    """A data file of a backup."""

    size: int
    sha256: str


@dataclass(frozen=True)
class TableCopy:
    """One table of a backup: its version, rows, offsets by app id, and files by path."""

    version: int
    rows: int
    offsets: dict[str, int]
    files: dict[str, Kept]


@dataclass(frozen=True)
class Manifest:
    """What a backup has. `registry` says where the registry's copy is, or how to make one."""

    name: str
    created_at: str
    silver_at: str
    tables: dict[str, TableCopy]
    registry: str
    new_files: int = 0
    new_bytes: int = 0
    format: int = field(default=1)

    @property
    def silver_version(self) -> int:
        """The version of silver.events that all of it belongs to."""
        return self.tables["silver.events"].version

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def bytes(self) -> int:
        """Bytes of all data files, those that other backups have, too."""
        return sum(f.size for table in self.tables.values() for f in table.files.values())


class Backups:
    """The directory of backups."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone with the directory: who copies files must not meet one who removes them."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise RetriableError(f"another backup is written to {self.root}: try again") from None
        except OSError as error:
            raise StoreUnavailableError(f"{self.root} cannot be written: {error}") from error
        try:
            yield
        finally:
            lock.release()

    def directory(self, name: str) -> Path:
        """Of one backup."""
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} is no name of a backup: see dcp backup list")
        return self.root / _BACKUPS / name

    def lake(self, name: str) -> str:
        """Root of the copied logs of a backup: a lake without data files."""
        return str(self.directory(name) / "lake")

    def files(self, table_path: str) -> Path:
        """Where the data files of a table lie."""
        return self.root / _FILES / table_path

    def list(self) -> list[Manifest]:
        """The backups that are whole, newest first."""
        found = [self._read(path) for path in (self.root / _BACKUPS).glob(f"*/{_MANIFEST}")]
        return sorted(found, key=lambda manifest: manifest.created_at, reverse=True)

    def get(self, name: str) -> Manifest:
        """One of them; raises ConfigurationError when there is none of that name."""
        path = self.directory(name) / _MANIFEST
        if not path.exists():
            raise ConfigurationError(f"no backup {name} in {self.root}: see dcp backup list")
        return self._read(path)

    def put(self, manifest: Manifest) -> None:
        """Write the manifest: from here on there is the backup."""
        path = self.directory(manifest.name) / _MANIFEST
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(manifest), indent=1))
        new.replace(path)

    def remove(self, name: str) -> int:
        """Remove a backup and the files that no other has; returns how many files that were."""
        directory = self.directory(name)
        if not directory.exists():
            raise ConfigurationError(f"no backup {name} in {self.root}: see dcp backup list")
        # Without its manifest it is none, whatever else is left of it.
        (directory / _MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(directory)
        return self.sweep()

    def keep(self, newest: int) -> int:
        """Keep only the newest backups (0: all); returns how many files went with the others."""
        for old in self.list()[newest:] if newest else []:
            (self.directory(old.name) / _MANIFEST).unlink()
        return self.sweep()

    def sweep(self) -> int:
        """Remove what no backup has: files, and what is left of backups that were never whole."""
        named = {
            self.files(table.replace(".", "/")) / path
            for manifest in self.list()
            for table, copy in manifest.tables.items()
            for path in copy.files
        }
        for directory in (self.root / _BACKUPS).glob("*"):
            if not (directory / _MANIFEST).exists():
                shutil.rmtree(directory)
        stray = [p for p in (self.root / _FILES).rglob("*") if p.is_file() and p not in named]
        for path in stray:
            path.unlink()
        return len(stray)

    def _read(self, path: Path) -> Manifest:
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            tables = {
                name: TableCopy(**{**t, "files": {p: Kept(*k) for p, k in t["files"].items()}})
                for name, t in content.pop("tables").items()
            }
            return Manifest(**content, tables=tables)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreUnavailableError(f"{path} cannot be read: {error!r}") from error


def copy(source: str, target: Path) -> str:
    """Put a data file at `target`, as a hard link on the same file system; gives its SHA-256.

    A process that dies leaves no half of a file under a name that counts.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.unlink(missing_ok=True)
    try:
        os.link(source, new)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, new)
    digest = sha256_of(new)
    new.replace(target)
    return digest


def sha256_of(path: Path) -> str:
    """In hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
