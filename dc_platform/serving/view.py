"""One moment of the union: silver at a version, and the tail after that version's border.

Both sides come from the same border, so an event is in exactly one of them: rows that the version
holds, or rows after the offsets that the version covers. A view never changes; a query keeps the one
that it began with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import whole
from dc_platform.lake.ranges import range_of
from dc_platform.lake.table import (
    Snapshot,
    empty_select,
    files_sql,
    sql_list,
    sql_text,
)
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.recent import Held

SCHEMA = SILVER_EVENTS.file_schema
COLUMNS = ", ".join(SCHEMA.names)
NOTHING = Held()


def rows_at(files: Snapshot, places: Iterable[int]) -> int | None:
    """Rows of the files at some places among `paths`; None where the log does not say so."""
    counts = [files.actions["num_records"][place].as_py() for place in places]
    return None if None in counts else sum(counts)


@dataclass(frozen=True)
class Few:
    """At most so many files, with so many rows."""

    files: int
    rows: int


@dataclass(frozen=True)
class Apart:
    """Files of which all rows that a query can match are in `relation`, which is registered; it has a
    view's columns, and rows of all tenants.
    """

    paths: Collection[str] = frozenset()
    relation: str = ""


@dataclass(frozen=True, eq=False)
class View:
    """`complete` is False while the tail does not hold all that Kafka has; then the answers hold up
    to `up_to_ms` (append time, epoch milliseconds). One of the past has no tail, and leaves out the
    rows for which `hidden` holds, a condition in SQL; None: it is of now.
    """

    silver: Snapshot
    border: Mapping[int, int]
    chunks: Sequence[Chunk] = field(default_factory=tuple)
    complete: bool = True
    up_to_ms: int = 0
    hidden: str | None = None
    apart: Apart = Apart()

    @cached_property
    def tail(self) -> pa.Table:
        """The tail's rows that are in memory."""
        tables = [chunk.table for chunk in self.chunks if chunk.table is not None]
        if not tables:
            return SCHEMA.empty_table()
        return pa.concat_tables([whole(t, SCHEMA) for t in tables])

    @cached_property
    def paths(self) -> frozenset[str]:
        """Silver's files."""
        return frozenset(self.silver.paths)

    def where(self, tenant_id: str) -> str:
        """The clause that leaves a tenant its rows."""
        mine = f"where tenant_id = {sql_text(tenant_id)}"
        return f"{mine} and ({self.hidden}) is not true" if self.hidden is not None else mine

    @property
    def tail_rows(self) -> int:
        """Rows of the tail, in memory and on disk, before exclusions."""
        return sum(chunk.rows for chunk in self.chunks)

    def events_sql(
        self,
        tenant_id: str,
        from_us: int | None = None,
        to_us: int | None = None,
        held: Held = NOTHING,
    ) -> str:
        """A SELECT of a tenant's rows of the union, as `union_sql` has them."""
        union = self.union_sql(from_us, to_us, held)
        if self.hidden is None and self._sole_tenant == tenant_id:
            # Looking at each row's tenant is a third of what it takes to count all of a lake.
            return union
        return f"select * from ({union}) {self.where(tenant_id)}"

    def sql_over_events(
        self, sql: str, tenant_id: str, from_us: int | None, to_us: int | None, held: Held
    ) -> str:
        """SQL that names `events`, which are these: as a name of WITH, for a view of DuckDB's is bound
        twice and takes 0.6 ms to make.
        """
        events = self.events_sql(tenant_id, from_us, to_us, held)
        return f"with events as not materialized ({events}) {sql}"

    @cached_property
    def _sole_tenant(self) -> str | None:
        """Whose all rows are; None where they are of several, or nothing says that they are not."""
        tenants: set[str | None] = set()
        for chunk in self.chunks:
            tenants |= chunk.facts.tenants
        if self.silver.paths:
            tenants.add(self.silver.sole("tenant_id"))
        return tenants.pop() if len(tenants) == 1 else None

    @cached_property
    def sampled(self) -> bool:
        """Whether an event may stand for more than itself; False where the log says that none does."""
        if any(chunk.facts.sampled for chunk in self.chunks):
            return True
        return bool(self.silver.paths) and self.silver.sole("sample_rate") != 1

    def silver_sql(
        self, from_us: int | None = None, to_us: int | None = None, held: Held = NOTHING
    ) -> str:
        """A SELECT of silver's rows; a time range leaves out files that cannot match."""
        paths = self.near(from_us, to_us)
        return " union all ".join(self._files(paths, held)) or empty_select(SCHEMA)

    def union_sql(
        self, from_us: int | None = None, to_us: int | None = None, held: Held = NOTHING
    ) -> str:
        """A SELECT of the union; the relation `tail` must be registered, where it is not `held`.
        `held`: rows that are in DuckDB's memory already.
        """
        chunks = self._chunks(from_us, to_us)
        here = chunks if held.tail else ()
        parts = self._files(self.near(from_us, to_us), held, here)
        return " union all ".join([*parts, *self._tail(chunks, held)]) or empty_select(SCHEMA)

    def tail_sqls(
        self, held: Held = NOTHING, from_us: int | None = None, to_us: int | None = None
    ) -> list[str]:
        """SELECTs that give the tail's rows; the relation `tail` must be registered, where they are not
        `held`. A time range leaves out chunks that cannot match.
        """
        chunks = self._chunks(from_us, to_us)
        return [*held.sqls((), chunks if held.tail else ()), *self._tail(chunks, held)]

    def _chunks(self, from_us: int | None, to_us: int | None) -> list[Chunk]:
        """The chunks that may have rows of a time range."""
        if from_us is None and to_us is None:
            return list(self.chunks)
        first, last = range_of(from_us, to_us)
        return [c for c in self.chunks if c.facts.least <= last and c.facts.most >= first]

    def near(self, from_us: int | None, to_us: int | None) -> list[str]:
        """The files that may have rows of a time range."""
        paths = self.silver.paths
        return [paths[n] for n in self._near(from_us, to_us)]

    def _near(self, from_us: int | None, to_us: int | None) -> Sequence[int]:
        if from_us is None and to_us is None:
            return range(len(self.silver.paths))
        near = self.silver.near("event_time", [range_of(from_us, to_us)])
        found: list[int] = np.flatnonzero(near).tolist()
        return found

    def is_held(self, from_us: int | None, to_us: int | None, held: Held, but: Few) -> bool:
        """Whether all rows that may be of a time range are in memory, in `held` or as chunks, but for
        those of a few files of silver.
        """
        if any(chunk.file is not None for chunk in self._chunks(from_us, to_us)):
            return False
        paths = self.silver.paths
        rest = [n for n in self._near(from_us, to_us) if paths[n] not in held.paths]
        if len(rest) > but.files:
            return False
        rows = rows_at(self.silver, rest)
        return rows is not None and rows <= but.rows

    def _files(self, paths: Sequence[str], held: Held, chunks: Sequence[Chunk] = ()) -> list[str]:
        """SELECTs of the rows of files, and of chunks that are held."""
        wanted = [path for path in paths if path not in self.apart.paths]
        parts = held.sqls(wanted, chunks)
        if len(wanted) < len(paths):
            parts.append(f"select {COLUMNS} from {self.apart.relation}")
        if rest := [path for path in wanted if path not in held.paths]:
            option = "hive_partitioning = false"
            lacking = self.silver.lacking(SILVER_EVENTS)
            parts.append(files_sql(SILVER_EVENTS, rest, lacking, option, columns=COLUMNS))
        return parts

    def _tail(self, chunks: Sequence[Chunk], held: Held) -> list[str]:
        """SELECTs of the rows of chunks that are not held."""
        parts = []
        if not held.tail and any(chunk.table is not None and chunk.rows for chunk in chunks):
            parts = [f"select {COLUMNS} from tail"]
        return parts + [self.spilled_sql(chunk) for chunk in chunks if chunk.file is not None]

    def spilled_sql(self, chunk: Chunk) -> str:
        """A SELECT of the rows of a spilled chunk that this view has."""
        assert chunk.file is not None
        conditions = [
            f"not (kafka_partition = {p} and kafka_offset < {self.border[p]})"
            for p, (first, _) in chunk.spans.items()
            if first < self.border.get(p, 0)
        ]
        if chunk.excluded:
            numbers = ", ".join(map(str, sorted(chunk.excluded)))
            conditions.append(f"file_row_number not in ({numbers})")
        where = f" where {' and '.join(conditions)}" if conditions else ""
        files = sql_list([str(chunk.file.path)])
        return f"select {COLUMNS} from read_parquet({files}, file_row_number = true){where}"
