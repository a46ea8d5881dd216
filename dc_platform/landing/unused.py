"""Data files that were written and that no commit was tried with: room, and nothing else.

A landing that fails before its commits leaves some, and is tried again for minutes: a full disk would
be filled with them as soon as it has room. Once a commit was tried with a file, the log alone can tell
whether it is live, so it is no longer one of these.
"""

from __future__ import annotations

from collections.abc import Iterable

from dc_platform.contracts.tables import TableSpec
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.store import Lake


class UnusedFiles:
    """Written from several threads, each file once."""

    def __init__(self, lake: Lake, identities: IdentityFiles) -> None:
        self._lake = lake
        self._identities = identities
        self._files: dict[str, TableSpec] = {}

    def add(self, spec: TableSpec, file: DataFile) -> DataFile:
        """A file of `spec` was written."""
        self._files[file.path] = spec
        return file

    def use(self, files: Iterable[DataFile]) -> None:
        """A commit is tried with these."""
        for file in files:
            self._files.pop(file.path, None)

    def remove(self) -> None:
        """Delete them, with the identities that were kept of them."""
        while self._files:
            path, spec = self._files.popitem()
            self._lake.remove(spec, path)
            self._identities.remove(path)
