"""Pieces of the tail as files that another process maps.

A chunk does not change, so it is written once, when a query first needs it, and its file goes with it:
a query pays for the chunks that came since the last one. Where the disk is full it is a file in memory
(memfd_create, on Linux): who asks must not lose the tail because nobody has room.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import pyarrow as pa

from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.parquet import whole
from dc_platform.serving.chunks import Chunk, SpillFile
from dc_platform.serving.view import SCHEMA, View

log = logging.getLogger(__name__)


class MemoryFile:
    """A file that has no place on a disk, and is gone when nobody refers to it any more."""

    def __init__(self, descriptor: int) -> None:
        self.path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        weakref.finalize(self, os.close, descriptor)


class TailFiles:
    """Writes chunks into a directory. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._files: WeakKeyDictionary[Chunk, SpillFile | MemoryFile] = WeakKeyDictionary()

    def of(self, view: View) -> list[str]:
        """Arrow files with the rows of a view's chunks that are in memory; they stay for as long as the
        view. Raises StoreUnavailableError when there is no room.
        """
        with self._lock:
            return [str(self._file(c).path) for c in view.chunks if c.table is not None]

    def _file(self, chunk: Chunk) -> SpillFile | MemoryFile:
        found = self._files.get(chunk)
        if found is None:
            rows = whole(chunk.table, SCHEMA)
            try:
                found = self._on_disk(rows)
            except OSError as error:
                log.warning("the tail cannot be written for SQL: %s", str(error))
                found = _in_memory(rows, str(error))
            self._files[chunk] = found
        return found

    def _on_disk(self, rows: pa.Table) -> SpillFile:
        handle, name = tempfile.mkstemp(".arrow", "tail-", self._directory)
        file = SpillFile(Path(name))
        try:
            _write(rows, handle)
        except OSError:
            file.path.unlink()
            raise
        return file


def _in_memory(rows: pa.Table, reason: str) -> MemoryFile:
    if not hasattr(os, "memfd_create"):
        raise StoreUnavailableError(f"the tail cannot be written for SQL: {reason}")
    file = MemoryFile(descriptor := os.memfd_create("tail"))
    _write(rows, os.dup(descriptor))
    return file


def _write(rows: pa.Table, descriptor: int) -> None:
    with os.fdopen(descriptor, "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)


def mapped(paths: Sequence[str]) -> pa.Table:
    """The rows of files, which stay where they are: nothing is copied."""
    return pa.concat_tables([pa.ipc.open_file(pa.memory_map(path)).read_all() for path in paths])
