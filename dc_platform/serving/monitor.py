"""What happened in the last day, at one moment: kept while somebody looks, at a bounded cost.

Files of silver and of quarantine are counted once each (rollup.py), the newest first and for half a
second per look, so the first look at a large lake answers at once with what is counted, says since
when that holds, and the following ones go on. Chunks of the tail are counted as they come. All who
look share a moment, which holds for a second, and for so long that making it takes a 20th of the time
at most.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import whole
from dc_platform.lake.table import Snapshot
from dc_platform.serving import rollup
from dc_platform.serving.answers import completeness
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.rollup import Counter, Rollup
from dc_platform.serving.view import View

DAY_MS = 24 * 3_600_000
_BUDGET_SECONDS = 0.5
_SECONDS = 1.0
# A moment holds for so many times as long as making it took; while files are being counted, for less.
_SHARE, _SHARE_COUNTING = 20, 2
_LARGE_ROWS = 20_000
# The newest time of a file that does not say it.
_UNKNOWN = 2**62
_TAIL_COLUMNS = [name for name in rollup.EVENT_COLUMNS if name != "processed_at"]
_TAIL_SCHEMA = pa.schema([SILVER_EVENTS.file_schema.field(name) for name in _TAIL_COLUMNS])


@dataclass(frozen=True, eq=False)
class Moment:
    """Counts of the last day up to `at_ms`, of all tenants. From `since_ms` on they are whole.

    It does not hold the view, whose memory goes with its last query. `landed` and `waiting` have the
    tables of `rollup.EVENTS`, `rejected` those of `rollup.REJECTED`.
    """

    at_ms: int
    since_ms: int
    silver_version: int
    border: Mapping[int, int]
    # What an answer says when the tail did not hold all that Kafka had.
    completeness: Mapping[str, Any]
    landed: list[Rollup]
    waiting: list[Rollup]
    rejected: list[Rollup]
    # Answers that were made of this moment.
    answers: dict[Any, Any] = field(default_factory=dict)

    def events(self, name: str) -> pa.Table:
        """One of the tables of `rollup.EVENTS`, landed or not."""
        return pa.concat_tables([part[name] for part in (*self.landed, *self.waiting)])

    def rejects(self) -> pa.Table:
        """Rejected events by their reasons."""
        return pa.concat_tables([part["reasons"] for part in self.rejected])

    def partitions(self) -> pa.Table:
        """Events of the tail by partition."""
        return pa.concat_tables([part["partitions"] for part in self.waiting])


class FileCounts:
    """Rollups of the files of a table that have rows of the last day."""

    def __init__(
        self, counter: Counter, statements: Mapping[str, str], columns: tuple[str, ...]
    ) -> None:
        self._counter = counter
        self._statements = statements
        self._columns = columns
        self._known: dict[str, Rollup] = {}
        self._empty = counter.rows(statements, _nothing(columns))

    def follow(self, snapshot: Snapshot, since_ms: int, deadline: float) -> int:
        """Count what is new until `deadline` (monotonic); gives since when all is counted."""
        wanted = {file.path: file for file in _newest_first(snapshot, since_ms)}
        self._known = {path: known for path, known in self._known.items() if path in wanted}
        missing = [(f.path, f.size) for f in wanted.values() if f.path not in self._known]
        for number, paths in enumerate(rollup.together(missing)):
            # Some at least, or a slow look would never come to an end.
            if number and time.monotonic() > deadline:
                return max(since_ms, wanted[paths[0]].newest_ms + 1)
            self._known |= self._counter.files(self._statements, paths, self._columns)
        return since_ms

    @property
    def rollups(self) -> list[Rollup]:
        """All that is counted; never empty."""
        return [self._empty, *self._known.values()]


class Monitor:
    """Makes moments. Thread-safe."""

    def __init__(self, temporary: Path) -> None:
        self._lock = threading.Lock()
        self.counter = Counter(temporary)
        self._silver = FileCounts(self.counter, rollup.EVENTS, rollup.EVENT_COLUMNS)
        self._quarantine = FileCounts(self.counter, rollup.REJECTED, rollup.REJECTED_COLUMNS)
        self._chunks: WeakKeyDictionary[Chunk, Rollup] = WeakKeyDictionary()
        self._moment: Moment | None = None
        self._holds_until = 0.0

    def moment(self, view: View, quarantine: Snapshot) -> Moment:
        """The last day as `view` and `quarantine` have it, or had it a moment ago."""
        with self._lock:
            begun = time.monotonic()
            if self._moment is None or begun >= self._holds_until:
                self._moment = self._make(view, quarantine, begun + _BUDGET_SECONDS)
                now = time.monotonic()
                counting = self._moment.since_ms > self._moment.at_ms - DAY_MS
                share = _SHARE_COUNTING if counting else _SHARE
                self._holds_until = now + max(_SECONDS, share * (now - begun))
            return self._moment

    def _make(self, view: View, quarantine: Snapshot, deadline: float) -> Moment:
        at_ms = time.time_ns() // 1_000_000
        since_ms = at_ms - DAY_MS
        waiting = list(self._tail(view))
        # What is shown first is counted first: rejected events are few.
        whole = self._quarantine.follow(quarantine, since_ms, deadline)
        whole = max(whole, self._silver.follow(view.silver, since_ms, deadline))
        return Moment(
            at_ms,
            min(whole, at_ms),
            view.silver.version,
            view.border,
            completeness(view),
            self._silver.rollups,
            waiting,
            self._quarantine.rollups,
        )

    def _tail(self, view: View) -> Iterator[Rollup]:
        small = []
        for chunk in view.chunks:
            if chunk.table is not None and chunk.rows < _LARGE_ROWS:
                small.append(_columns(chunk.table))
                continue
            cut = any(first < view.border.get(p, 0) for p, (first, _) in chunk.spans.items())
            known = None if cut else self._chunks.get(chunk)
            if known is None:
                known = self._of_chunk(view, chunk)
                if not cut:
                    self._chunks[chunk] = known
            yield known
        table = pa.concat_tables(small) if small else _TAIL_SCHEMA.empty_table()
        yield self.counter.rows(rollup.TAIL, _waiting("given"), table)

    def _of_chunk(self, view: View, chunk: Chunk) -> Rollup:
        if chunk.table is None:
            return self.counter.rows(rollup.TAIL, _waiting(f"({view.spilled_sql(chunk)})"))
        return self.counter.rows(rollup.TAIL, _waiting("given"), _columns(chunk.table))


def _columns(table: pa.Table) -> pa.Table:
    return whole(table, _TAIL_SCHEMA)


def _waiting(relation: str) -> str:
    names = ", ".join(_TAIL_COLUMNS)
    return f"select {names}, null::timestamptz as processed_at from {relation}"


def _nothing(columns: tuple[str, ...]) -> str:
    typed = [
        f"null::{'timestamptz' if name.endswith('_at') else 'varchar'} as {name}"
        for name in columns
    ]
    return f"select {', '.join(typed)} where false"


class _File(NamedTuple):
    newest_ms: int
    path: str
    size: int


def _newest_first(snapshot: Snapshot, since_ms: int) -> list[_File]:
    """Files that may have rows of that time, with the newest time that they may have."""
    _, high = snapshot.bounds("received_at")
    newest = (
        pc.divide(high.cast(pa.int64()), 1000)
        if not pa.types.is_null(high.type)
        else pa.nulls(len(high), pa.int64())
    )
    files = zip(
        newest.fill_null(_UNKNOWN).to_pylist(),
        snapshot.paths,
        snapshot.actions["size_bytes"].to_pylist(),
        strict=True,
    )
    return sorted((_File(*file) for file in files if file[0] >= since_ms), reverse=True)
