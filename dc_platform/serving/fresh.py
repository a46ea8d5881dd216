"""Events beside the search index: of files that it does not have yet, and of the tail.

Their words are made once, when a search first needs them, and kept while they are not in the index. A
search looks through them from end to end: 100,000 take a few milliseconds. What is newest comes first,
and past the bound the answer is not complete.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.parquet import whole
from dc_platform.lake.rewrite import in_pieces
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import below
from dc_platform.search.analysis import COLUMNS, Analyzer
from dc_platform.search.state import Missing
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.view import View

log = logging.getLogger(__name__)

_SCHEMA = pa.schema([SILVER_EVENTS.file_schema.field(name) for name in COLUMNS])
# Of words and what searches are filtered by, at most, for each event that may be looked through.
_ROW_BYTES = 400


class TooManyError(Exception):
    """More events than may be looked through."""


@dataclass(frozen=True)
class Part:
    """Events of one file or one piece of the tail; `number` stands in each of their rows."""

    number: int
    table: pa.Table


@dataclass(frozen=True)
class Beside:
    """All events beside the index: one table; the file that the rows of a part lie in, None for the
    tail; `left_out` events were too many.
    """

    table: pa.Table | None
    homes: dict[int, str | None]
    left_out: int


class Fresh:
    """Keeps the words of events that are not in the index. Thread-safe."""

    def __init__(self, lake: Lake, analyzer: Analyzer, *, rows: int) -> None:
        self._root = lake.uri_of(SILVER_EVENTS)
        self._analyzer = analyzer
        self._rows = rows
        self._lock = threading.Lock()
        self._numbers = count()
        self._files: dict[str, Part | None] = {}
        # A chunk in memory never changes; a spilled one is known by its file. None: it has too many.
        self._chunks: WeakKeyDictionary[Any, Part | None] = WeakKeyDictionary()

    def beside(self, view: View, missing: Sequence[Missing], rows_of: dict[str, int]) -> Beside:
        """What a search of the view looks through: the tail, and the files that are `missing` from the
        index, of which the live ones have `rows_of` rows.
        """
        with self._lock:
            taken = _Taken(self._rows)
            for chunk in reversed(view.chunks):
                self._take(taken, chunk.rows, lambda chunk=chunk: self._of_chunk(chunk, view))
            for file in missing:
                known = rows_of[file.within] if file.path == file.within else 0
                self._take(taken, known, lambda file=file: self._of_file(file.path), file.within)
            wanted = {file.path for file in missing}
            self._files = {path: part for path, part in self._files.items() if path in wanted}
        return taken.all()

    def _take(self, taken: _Taken, rows: int, make: Any, home: str | None = None) -> None:
        if rows > taken.rows_left:
            taken.left_out += rows
            return
        try:
            taken.add(make(), home)
        except TooManyError:
            taken.left_out += max(rows, 1)
        except StoreUnavailableError as error:
            log.warning("a search goes on without some events: %s", error)
            taken.left_out += max(rows, 1)

    def _of_file(self, path: str) -> Part:
        if path not in self._files:
            self._files[path] = self._part(in_pieces(self._root, path, COLUMNS))
        return _there(self._files[path])

    def _of_chunk(self, chunk: Chunk, view: View) -> Part:
        key: Any = chunk if chunk.file is None else chunk.file
        if key not in self._chunks:
            self._chunks[key] = self._part(_batches(chunk))
        found = _there(self._chunks[key])
        if chunk.file is None:
            return found
        # What has landed since, and duplicates, stay in a spilled file.
        keep = ~below(found.table, dict(view.border))
        keep[sorted(chunk.excluded)] = False
        return Part(found.number, found.table.filter(pa.array(keep)))

    def _part(self, batches: Iterable[pa.RecordBatch]) -> Part | None:
        """The words of events; None of too many."""
        number = next(self._numbers)
        tables: list[pa.Table] = []
        rows = size = 0
        for batch in batches:
            table = self._analyzer.searchable(whole(pa.Table.from_batches([batch]), _SCHEMA))
            tables.append(table.append_column("part", pa.array(np.full(len(table), number))))
            rows, size = rows + len(table), size + table.nbytes
            if rows > self._rows or size > self._rows * _ROW_BYTES:
                return None
        return Part(number, pa.concat_tables(tables) if tables else _EMPTY)


def _there(part: Part | None) -> Part:
    if part is None:
        raise TooManyError
    return part


class _Taken:
    """The parts of one search."""

    def __init__(self, rows: int) -> None:
        self.rows_left = rows
        self._bytes_left = rows * _ROW_BYTES
        self._tables: list[pa.Table] = []
        self._homes: dict[int, str | None] = {}
        self.left_out = 0

    def add(self, part: Part, home: str | None) -> None:
        rows, size = len(part.table), part.table.nbytes
        if rows > self.rows_left or size > self._bytes_left:
            raise TooManyError
        if rows:
            self.rows_left -= rows
            self._bytes_left -= size
            self._tables.append(part.table)
            self._homes[part.number] = home

    def all(self) -> Beside:
        table = pa.concat_tables(self._tables) if self._tables else None
        return Beside(table, self._homes, self.left_out)


_EMPTY = pa.table({})


def _batches(chunk: Chunk) -> Iterator[pa.RecordBatch]:
    if chunk.table is not None:
        yield from chunk.table.combine_chunks().to_batches(max_chunksize=16_384)
    else:
        assert chunk.file is not None
        path = chunk.file.path
        yield from in_pieces(str(path.parent), path.name, COLUMNS)
