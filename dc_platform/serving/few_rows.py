"""Some rows of data files, and of the others as little as can be.

Who knows of a file in which row groups the rows are, and in which rows of these, has them read here: a
row group in pieces, up to the last row that is wanted, and several files or row groups at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.footers import Footer, Rows
from dc_platform.lake.parquet import whole
from dc_platform.lake.rewrite import group_batch_rows
from dc_platform.lake.store import Lake
from dc_platform.serving.rows import QueryTimeoutError

SCHEMA = SILVER_EVENTS.file_schema
# Rows are decoded up to the one that is wanted, in pieces of so many: half a row group on average.
_PIECE_ROWS = 2048


class TooLargeError(Exception):
    """The rows take more bytes than they may."""


class Wanted(NamedTuple):
    """A file by its absolute path, and what tells its row groups with the rows of each that are wanted:
    their numbers in the row group, ascending.
    """

    path: str
    rows: Callable[[pq.ParquetFile, Footer], Iterable[tuple[int, Rows]]]


class FewRows:
    """Reads rows of a lake's silver. Thread-safe."""

    def __init__(self, lake: Lake, *, threads: int, seconds: float) -> None:
        self._footers = lake.footers
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(threads, "rows")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def read(
        self,
        wanted: Iterable[Wanted],
        names: Sequence[str],
        *,
        most_bytes: int,
        until: float | None = None,
    ) -> pa.Table:
        """The rows that are wanted; the other columns, and those that a file lacks, are null.

        Raises TooLargeError, QueryTimeoutError after as long as a query may take or at `until`
        (`time.monotonic`), OSError and pa.ArrowException.
        """
        room = _Room(most_bytes, self._seconds, until)
        tables = [SCHEMA.empty_table().select(list(names))]
        reading = [self._threads.submit(self._read, each, names, room) for each in wanted]
        try:
            for each in reading:
                tables += each.result()
        finally:
            room.close()
            for each in reading:
                each.cancel()
        return whole(pa.concat_tables(tables, promote_options="default"), SCHEMA)

    def _read(self, wanted: Wanted, names: Sequence[str], room: _Room) -> list[pa.Table]:
        room.take(0)
        footer = self._footers.of(wanted.path)
        columns = [name for name in names if name in footer.columns]
        found = []
        with pq.ParquetFile(wanted.path, metadata=footer.metadata, memory_map=True) as file:
            for group, rows in wanted.rows(file, footer):
                for part in _parts_of(file, group, columns, rows):
                    room.take(part.nbytes)
                    found.append(part)
        return [pa.Table.from_batches(found)] if found else []


class _Room:
    """The bytes, and the time, that all rows of a query share. Thread-safe."""

    def __init__(self, most_bytes: int, seconds: float, until: float | None = None) -> None:
        self._lock = threading.Lock()
        self._left = most_bytes
        self._seconds = seconds
        self._until = time.monotonic() + seconds if until is None else until

    def take(self, size: int) -> None:
        """Take so many bytes; raises TooLargeError and QueryTimeoutError."""
        if time.monotonic() > self._until:
            raise QueryTimeoutError(self._seconds)
        with self._lock:
            self._left -= size
            if self._left < 0:
                raise TooLargeError

    def close(self) -> None:
        """Nobody waits for the rows any more."""
        with self._lock:
            self._left = -1


def _parts_of(
    file: pq.ParquetFile, group: int, columns: Sequence[str], rows: Rows
) -> Iterator[pa.RecordBatch]:
    if not len(rows):
        return
    start = taken = 0
    size = min(_PIECE_ROWS, group_batch_rows(file, group))
    for batch in file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False):
        end = int(np.searchsorted(rows, start + len(batch)))
        if end > taken:
            yield batch.take(pa.array(rows[taken:end] - start))
        start, taken = start + len(batch), end
        if taken == len(rows):
            break
