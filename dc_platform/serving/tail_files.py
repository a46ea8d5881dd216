"""Pieces of the tail as files that another process maps.

A chunk does not change, so it is written once, when a query first needs it, and its file goes with it:
a query pays for the chunks that came since the last one.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import pyarrow as pa

from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.parquet import whole
from dc_platform.serving.chunks import Chunk, SpillFile
from dc_platform.serving.view import SCHEMA, View


class TailFiles:
    """Writes chunks into a directory. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._files: WeakKeyDictionary[Chunk, SpillFile] = WeakKeyDictionary()

    def of(self, view: View) -> list[str]:
        """Arrow files with the rows of a view's chunks that are in memory; they stay for as long as the
        view. Raises StoreUnavailableError when there is no room.
        """
        with self._lock:
            return [str(self._file(c).path) for c in view.chunks if c.table is not None]

    def _file(self, chunk: Chunk) -> SpillFile:
        found = self._files.get(chunk)
        if found is None:
            found = self._files[chunk] = self._written(whole(chunk.table, SCHEMA))
        return found

    def _written(self, rows: pa.Table) -> SpillFile:
        try:
            handle, name = tempfile.mkstemp(".arrow", "tail-", self._directory)
            file = SpillFile(Path(name))
            with os.fdopen(handle, "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
                writer.write_table(rows)
        except OSError as error:
            raise StoreUnavailableError(f"the tail cannot be written for SQL: {error}") from error
        return file


def mapped(paths: Sequence[str]) -> pa.Table:
    """The rows of files, which stay where they are: nothing is copied."""
    return pa.concat_tables([pa.ipc.open_file(pa.memory_map(path)).read_all() for path in paths])
