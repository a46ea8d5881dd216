"""Answers that hold as long as the rows that they are of.

An answer depends on nothing but the statement and the rows of its time range: the files of silver that
may have some, which never change, and the pieces of the tail that may. Their names are in the key, so
an answer is never stale, and one of a closed range stays although other hours get events. Gold is not
in the key: what it answers is what silver would.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dc_platform.lake.ranges import range_of
from dc_platform.lake.table import Snapshot
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.view import View

# An answer may take so much of the cache; a larger one would push out all others.
_SHARE = 8
# What an entry costs beside its rows, its key included.
_OVERHEAD = 1024
_KEY_BYTES = 32
# Of so many files that went the numbers are remembered.
_MOST_GONE = 100_000


class ResultCache:
    """Tables by key, at most so many bytes; what was used longest ago goes first. Thread-safe."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._lock = threading.Lock()
        # Each with the bytes that it takes.
        self._tables: OrderedDict[bytes, tuple[pa.Table, int]] = OrderedDict()
        self._bytes = 0
        self._numbers = count(1)
        self._files: dict[str, int] = {}
        self._numbered: tuple[Snapshot, npt.NDArray[np.int64]] | None = None
        self._pieces: WeakKeyDictionary[Chunk, int] = WeakKeyDictionary()
        self.hits = self.misses = 0

    def get(self, key: bytes) -> pa.Table | None:
        """The table of a key."""
        with self._lock:
            found = self._tables.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._tables.move_to_end(key)
            return found[0]

    def put(self, key: bytes, table: pa.Table) -> None:
        """Keep a table, unless it is too large."""
        if (table.nbytes + _OVERHEAD) * _SHARE > self._limit:
            return
        table, size = _compact(table)
        size += _OVERHEAD
        with self._lock:
            if key in self._tables:
                return
            self._tables[key] = (table, size)
            self._bytes += size
            while self._bytes > self._limit and self._tables:
                _, (_, gone) = self._tables.popitem(last=False)
                self._bytes -= gone

    @property
    def size_bytes(self) -> int:
        """What the entries take."""
        return self._bytes

    def key(
        self,
        view: View,
        from_us: int | None,
        to_us: int | None,
        tenant_id: str,
        sql: str,
        parameters: Mapping[str, Any],
    ) -> bytes:
        """Names a statement and the rows that it reads: a digest, for the files of 30 days are more
        bytes than most answers.
        """
        span = range_of(from_us, to_us)
        near = view.silver.near("event_time", [span])
        files = self._numbers_of(view.silver)[near].tobytes()
        # As text, for in Python 1, 1.0 and True are the same.
        parts = (
            tenant_id,
            sql,
            sorted(parameters.items()),
            view.silver.root,
            view.hidden,
            self._tail(view, *span),
        )
        text = repr(parts).encode()
        digest = hashlib.blake2b(len(text).to_bytes(8, "big"), digest_size=_KEY_BYTES)
        digest.update(text)
        digest.update(files)
        return digest.digest()

    def _numbers_of(self, silver: Snapshot) -> npt.NDArray[np.int64]:
        """A number for each file of a snapshot; the same for the same file."""
        with self._lock:
            if self._numbered is not None and self._numbered[0] is silver:
                return self._numbered[1]
            if len(self._files) > 2 * len(silver.paths) + _MOST_GONE:
                self._files = {}
            for path in silver.paths:
                if path not in self._files:
                    self._files[path] = next(self._numbers)
            numbers = np.array([self._files[path] for path in silver.paths], np.int64)
            self._numbered = (silver, numbers)
            return numbers

    def _tail(self, view: View, first: int, last: int) -> list[object]:
        found: list[object] = []
        with self._lock:
            for chunk in view.chunks:
                number = self._piece(chunk)
                if chunk.facts.least <= last and chunk.facts.most >= first:
                    found.append(number)
                    if chunk.file is not None:
                        # Of a spilled piece the border hides what has landed since.
                        found.append([(p, view.border.get(p)) for p in sorted(chunk.spans)])
        return found

    def _piece(self, chunk: Chunk) -> int:
        """A number for a piece."""
        if chunk not in self._pieces:
            self._pieces[chunk] = next(self._numbers)
        return self._pieces[chunk]


def _compact(table: pa.Table) -> tuple[pa.Table, int]:
    """The same rows in as much memory as they take, and how many bytes that is: DuckDB reserves more
    than it fills.
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    buffer = sink.getvalue()
    return pa.ipc.open_stream(buffer).read_all(), buffer.size
