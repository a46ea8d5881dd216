"""One moment of the union: silver at a version, and the tail after that version's border.

Both sides come from the same border, so an event is in exactly one of them: rows that the version
holds, or rows after the offsets that the version covers. A view never changes; a query keeps the one
that it began with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import whole
from dc_platform.lake.table import Snapshot, empty_select, files_sql, sql_list, sql_text
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.recent import Held

SCHEMA = SILVER_EVENTS.file_schema
COLUMNS = ", ".join(SCHEMA.names)
NOTHING = Held()


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

    def where(self, tenant_id: str) -> str:
        """The clause that leaves a tenant its rows."""
        mine = f"where tenant_id = {sql_text(tenant_id)}"
        return f"{mine} and ({self.hidden}) is not true" if self.hidden is not None else mine

    @property
    def tail_rows(self) -> int:
        """Rows of the tail, in memory and on disk, before exclusions."""
        return sum(chunk.rows for chunk in self.chunks)

    def silver_sql(
        self, from_us: int | None = None, to_us: int | None = None, held: Held = NOTHING
    ) -> str:
        """A SELECT of silver's rows; a time range leaves out files that cannot match."""
        return _parquet(self.silver, self.near(from_us, to_us), held, self.apart)

    def near(self, from_us: int | None, to_us: int | None) -> list[str]:
        """The files that may have a row of a time range."""
        return _pruned(self.silver, from_us, to_us)

    def union_sql(
        self, from_us: int | None = None, to_us: int | None = None, held: Held = NOTHING
    ) -> str:
        """A SELECT of the union; the relation `tail` must be registered, where it is not `held`.
        `held`: rows that are in DuckDB's memory already.
        """
        return " union all ".join([self.silver_sql(from_us, to_us, held), *self.tail_sqls(held)])

    def tail_sqls(self, held: Held = NOTHING) -> list[str]:
        """SELECTs that give the tail's rows; the relation `tail` must be registered, where they are not
        `held`.
        """
        parts = [held.tail] if held.tail else []
        if not held.tail and len(self.tail):
            parts = [f"select {COLUMNS} from tail"]
        return parts + [self.spilled_sql(chunk) for chunk in self.chunks if chunk.file is not None]

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


def _parquet(snapshot: Snapshot, near: Sequence[str], held: Held, apart: Apart) -> str:
    wanted = [path for path in near if path not in apart.paths]
    paths = [path for path in wanted if path not in held.paths]
    parts = [held.files] if len(paths) < len(wanted) else []
    if len(wanted) < len(near):
        parts.append(f"select {COLUMNS} from {apart.relation}")
    if paths:
        lacking = snapshot.lacking(SILVER_EVENTS)
        option = "hive_partitioning = false"
        parts.append(files_sql(SILVER_EVENTS, paths, lacking, option, columns=COLUMNS))
    return " union all ".join(parts) or empty_select(SCHEMA)


def _pruned(snapshot: Snapshot, from_us: int | None, to_us: int | None) -> list[str]:
    if (from_us is None and to_us is None) or not snapshot.paths:
        return snapshot.paths
    low, high = snapshot.bounds("event_time")
    if pa.types.is_null(low.type):
        return snapshot.paths
    keep = pa.array([True] * len(low))
    if to_us is not None:
        keep = pc.and_(keep, pc.less(low.cast(pa.int64()), to_us).fill_null(True))
    if from_us is not None:
        keep = pc.and_(keep, pc.greater_equal(high.cast(pa.int64()), from_us).fill_null(True))
    return [path for path, kept in zip(snapshot.paths, keep.to_pylist(), strict=True) if kept]
