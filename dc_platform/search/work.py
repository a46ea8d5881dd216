"""What a build changes: pieces that come and go, and what the index says of itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dc_platform.search.analysis import Analyzer
from dc_platform.search.index import Writing
from dc_platform.search.state import Covered, Range, State


class Work:
    """The changes of one build, in the index when they are committed."""

    def __init__(self, writing: Writing, before: State, gone: Sequence[Range]) -> None:
        self._writing = writing
        self._table = before.table
        self._next_piece = before.next_piece
        self._rows: dict[int, int] = {}
        self.version = before.version
        self._removed_ms = before.removed_ms or (now_ms() if gone else 0)
        writing.remove(gone)
        dead = [range(first, last + 1) for first, last in gone]
        self.files = {
            path: file
            for path, file in before.files.items()
            if not any(first in numbers for first, _ in file.pieces for numbers in dead)
        }
        self.added = 0
        self.since_commit = 0
        self.unreadable: list[str] = []
        self.unreadable_rows = 0

    def begin(self) -> int:
        """The number of a new piece."""
        self._next_piece += 1
        return self._next_piece - 1

    def add(self, piece: int, rows: pa.Table, analyzer: Analyzer) -> None:
        """Add rows to a piece."""
        numbers = pa.array(np.full(len(rows), piece, np.int64))
        self._writing.add(analyzer.as_json(rows.append_column("piece", numbers)))
        self._rows[piece] = self._rows.get(piece, 0) + len(rows)

    def give_up(self, piece: int, path: str) -> None:
        """The rest of a piece cannot be read: it is not in the index."""
        self._writing.remove([(piece, piece)])
        self.unreadable.append(path)

    def end(self, piece: int, path: str) -> None:
        """A piece is whole."""
        rows = self._rows.pop(piece, 0)
        self.files[path] = Covered(rows, ((piece, piece),))
        self.added += rows
        self.since_commit += rows

    def state(self) -> State:
        """What the index is to say of itself."""
        return State(
            self._table,
            version=self.version,
            built_ms=now_ms(),
            next_piece=self._next_piece,
            unreadable=self.unreadable_rows,
            removed_ms=self._removed_ms,
            files=self.files,
        )

    def commit(self) -> None:
        """Make it so."""
        self._writing.commit(self.state())
        self.since_commit = 0


def now_ms() -> int:
    """Now, in epoch milliseconds."""
    return time.time_ns() // 1_000_000
