"""The view of one process in another: what has changed since the last one goes over.

Files of silver and chunks of the tail do not change. So a view is the files of a version, if that is
another one, the numbers of its chunks, and the rows of those that are new.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from dc_platform.lake.parquet import whole
from dc_platform.lake.table import Snapshot
from dc_platform.landing.keys import SortedKeys
from dc_platform.serving.chunks import Chunk, Facts
from dc_platform.serving.view import SCHEMA, View


class Silver(NamedTuple):
    """The files of a version, as Arrow."""

    version: int
    actions: bytes
    root: str


class Piece(NamedTuple):
    """A chunk; its rows are Arrow."""

    number: int
    spans: dict[int, tuple[int, int]]
    facts: Facts
    rows: bytes


class Change(NamedTuple):
    """A view after another one. `silver`: None where it is the same; `new` are those of the `chunks`
    that the other one did not have.
    """

    silver: Silver | None
    chunks: list[int]
    new: list[Piece]
    border: dict[int, int]
    complete: bool
    up_to_ms: int


class Packer:
    """Packs each chunk once, for all who get it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: weakref.WeakKeyDictionary[Chunk, Piece] = weakref.WeakKeyDictionary()
        self._numbers = count(1)

    def piece(self, chunk: Chunk) -> Piece:
        """A chunk whose rows are in memory."""
        with self._lock:
            found = self._pieces.get(chunk)
            if found is None:
                rows = _packed(whole(chunk.table, SCHEMA))
                found = Piece(next(self._numbers), chunk.spans, chunk.facts, rows)
                self._pieces[chunk] = found
            return found


class Sender:
    """What the other side has of the views."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer
        self._view: weakref.ref[View] | None = None
        self._silver: weakref.ref[Snapshot] | None = None
        self._numbers: frozenset[int] = frozenset()

    def has(self, view: View) -> bool:
        """Whether the other side has this view."""
        return self._view is not None and self._view() is view

    def change(self, view: View) -> Change:
        """What makes this view, whose chunks are all in memory, of the one that was sent last."""
        pieces = [self._packer.piece(chunk) for chunk in view.chunks]
        silver = None
        if self._silver is None or self._silver() is not view.silver:
            files = view.silver
            silver = Silver(files.version, _packed(files.actions), files.root)
        return Change(
            silver,
            [piece.number for piece in pieces],
            [piece for piece in pieces if piece.number not in self._numbers],
            dict(view.border),
            view.complete,
            view.up_to_ms,
        )

    def sent(self, view: View, change: Change) -> None:
        """The other side gets it, and keeps no chunks of others."""
        self._numbers = frozenset(change.chunks)
        self._view, self._silver = weakref.ref(view), weakref.ref(view.silver)


class Receiver:
    """The other side."""

    def __init__(self) -> None:
        self.view: View | None = None
        self._chunks: Mapping[int, Chunk] = {}

    def take(self, change: Change) -> View:
        """Follow the sender; the view that it has."""
        known = {**self._chunks, **{piece.number: _chunk(piece) for piece in change.new}}
        self._chunks = {number: known[number] for number in change.chunks}
        if change.silver is not None:
            version, actions, root = change.silver
            silver = Snapshot(version, _unpacked(actions), root)
        else:
            assert self.view is not None
            silver = self.view.silver
        chunks = tuple(self._chunks.values())
        self.view = View(silver, change.border, chunks, change.complete, change.up_to_ms)
        return self.view


def _chunk(piece: Piece) -> Chunk:
    """A chunk of which nobody looks for identities."""
    table = _unpacked(piece.rows)
    none = np.empty(0, np.uint64)
    keys, order = SortedKeys(none, none), np.empty(0, np.int32)
    return Chunk(keys, order, piece.spans, len(table), table.nbytes, piece.facts, table)


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _unpacked(packed: bytes) -> Any:
    return pa.ipc.open_stream(packed).read_all()
