"""Where the lake is, and how a table's directory is opened, created and written to."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError

from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.footers import Footers

_WIDEN_TRIES = 10


class Entry(NamedTuple):
    """A file of a table's directory; `modified` in epoch seconds."""

    path: str
    size: int
    modified: float


class Lake:
    """The root of all tables: a local directory (S3-compatible stores come with requirement C6)."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._fs = pafs.LocalFileSystem()
        # Tables that are known to have all columns.
        self._wide: set[str] = set()
        self.footers = Footers()

    def uri_of(self, spec: TableSpec) -> str:
        """The URI of a table."""
        return f"{self.uri}/{spec.path}"

    def open(self, spec: TableSpec, version: int | None = None) -> DeltaTable:
        """The table at a version, by default the newest, as delta-rs has it; for `lake/table.py`
        alone.
        """
        return DeltaTable(self.uri_of(spec), version=version)

    def exists(self, spec: TableSpec) -> bool:
        """Whether the table was created."""
        return DeltaTable.is_deltatable(self.uri_of(spec))

    def ensure(self, spec: TableSpec) -> None:
        """Create the table, or the columns that one of an older release lacks; safe to call from
        several processes.
        """
        if self.exists(spec):
            self._widen(spec)
            return
        try:
            DeltaTable.create(
                self.uri_of(spec),
                schema=spec.columns,
                mode="ignore",
                partition_by=[spec.partition_by] if spec.partition_by else None,
                name=spec.name,
                description=spec.description,
                configuration=spec.properties,
                # Of several creators one writes version 0; rebased, each would write the metadata.
                commit_properties=CommitProperties(max_commit_retries=0),
            )
        except Exception as error:
            if not self.exists(spec):
                raise StoreUnavailableError(f"creating {spec.name} failed: {error}") from error

    def _widen(self, spec: TableSpec) -> None:
        """Add columns that are missing; what is there stays, and reads as null in them."""
        if not spec.added or spec.name in self._wide:
            return
        for attempt in range(_WIDEN_TRIES):
            table = self.open(spec)
            have = {field.name for field in table.schema().fields}
            wanted = pa.schema([spec.columns.field(n) for n in spec.added if n not in have])
            if not len(wanted):
                break
            try:
                table.alter.add_columns(Schema.from_arrow(wanted).fields)
            except DeltaError as error:
                # Another process adds them, or landing commits.
                if attempt == _WIDEN_TRIES - 1:
                    raise StoreUnavailableError(
                        f"adding columns to {spec.name} failed: {error}"
                    ) from error
        self._wide.add(spec.name)

    def has(self, spec: TableSpec, path: str) -> bool:
        """Whether a file of the table is there, or cannot be asked for."""
        try:
            found = self._fs.get_file_info(f"{self.uri_of(spec)}/{path}")
        except OSError:
            return True
        return bool(found.type != pafs.FileType.NotFound)

    def output(self, spec: TableSpec, path: str) -> Any:
        """An output stream for a new file of the table."""
        full = f"{self.uri_of(spec)}/{path}"
        self._fs.create_dir(str(Path(full).parent), recursive=True)
        return self._fs.open_output_stream(full)

    def adopt(self, spec: TableSpec, source: str, path: str) -> None:
        """Put the file `source` into the table as `path`, as young as if it had just been written: as a
        hard link where the file system can, else as a copy.
        """
        full = Path(f"{self.uri_of(spec)}/{path}")
        try:
            full.parent.mkdir(parents=True, exist_ok=True)
            try:
                full.hardlink_to(source)
            except FileNotFoundError:
                raise
            except OSError:
                shutil.copyfile(source, full)
            os.utime(full)
        except OSError as error:
            raise StoreUnavailableError(
                f"taking {source} into {spec.name} failed: {error}"
            ) from error

    def mapped(self, spec: TableSpec, path: str) -> memoryview | None:
        """A file of the table, mapped into memory; None when there is none, or it cannot be read.

        Reading 400 MB instead costs 100,000 page faults, of 10 µs each in a virtual machine.
        """
        try:
            with pa.memory_map(f"{self.uri_of(spec)}/{path}") as file:
                return memoryview(file.read_buffer())
        except OSError:
            return None

    def listing(self, spec: TableSpec, folder: str = "", *, deep: bool = False) -> list[Entry]:
        """The files in a folder of the table, their paths relative to the table."""
        root = self.uri_of(spec)
        selector = pafs.FileSelector(f"{root}/{folder}", recursive=deep, allow_not_found=True)
        try:
            found = self._fs.get_file_info(selector)
        except OSError as error:
            raise StoreUnavailableError(f"listing {spec.name} failed: {error}") from error
        return [
            Entry(i.path.removeprefix(f"{root}/"), i.size, i.mtime_ns / 1e9)
            for i in found
            if i.type == pafs.FileType.File
        ]

    def remove(self, spec: TableSpec, path: str) -> None:
        """Delete a file that no version of the table needs, if it is there. It costs room alone: a
        store that refuses is left to vacuum.
        """
        with suppress(OSError):
            self._fs.delete_file(f"{self.uri_of(spec)}/{path}")
