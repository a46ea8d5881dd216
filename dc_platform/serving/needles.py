"""The rows that can have one value of a payload field, in place of the files that they lie in.

Where a query says that a field of DCP_INDEXED_FIELDS is a value (or one of a few), the indexes beside
silver's files (`lake/payload_index.py`) tell the rows. These alone are read, a row group up to the row,
and stand as an Arrow table where the files would be scanned. The query's filters are evaluated on them
as on any others, so an index that tells of too many rows does no harm; a file without one, the rows in
memory and the tail are looked through as ever.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.lake.footers import Footer, Rows
from dc_platform.lake.payload_index import STAY, U64, Field, key_sql, read_index
from dc_platform.lake.store import Lake
from dc_platform.lake.table import Snapshot
from dc_platform.serving.conditions import Equality
from dc_platform.serving.few_rows import SCHEMA, FewRows, TooLargeError, Wanted
from dc_platform.serving.recent import Held
from dc_platform.serving.view import Apart, View

log = logging.getLogger(__name__)

Span = tuple[int | None, int | None]
# The name that the rows have in SQL.
_RELATION = "needles"
# Of more the files are scanned: a third of all row groups of 100,000,000 events, read one by one, take
# as long. Bytes as the rows are in memory, beside DuckDB's.
_MOST_ROWS = 200_000
_MOST_BYTES = 256 * 2**20
_MOST_VALUES = 100


@dataclass(frozen=True)
class Found:
    """Absolute path of a file with an index → the rows that can match. `lacking`: files without one."""

    rows: Mapping[str, U64]
    lacking: int

    @property
    def usable(self) -> bool:
        """Whether the rows are read; else all files are scanned."""
        return bool(self.rows) and self._count <= _MOST_ROWS

    @property
    def _count(self) -> int:
        return sum(map(len, self.rows.values()))

    def shown(self) -> dict[str, Any]:
        """For people: `explain`."""
        shown = {"files": len(self.rows), "filesWithout": self.lacking, "rows": self._count}
        return {"used": self.usable, **shown}


class Needles:
    """Looks into the indexes of a lake's silver. Thread-safe."""

    def __init__(self, lake: Lake, *, threads: int, seconds: float) -> None:
        self._lake = lake
        self._lock = threading.Lock()
        # The newest of silver that a query had.
        self._version = -1
        self._indexes: dict[str, dict[str, Field]] = {}
        self._few_rows = FewRows(lake, threads=threads, seconds=seconds)

    def close(self) -> None:
        """End the threads."""
        self._few_rows.close()

    def narrow(
        self,
        cursor: duckdb.DuckDBPyConnection,
        view: View,
        held: Held,
        span: Span,
        equalities: Sequence[Equality],
        sql: str,
        until: float | None = None,
    ) -> View:
        """The view, with those files apart of which the cursor now has the rows that can match. Columns
        that `sql` does not name are null there. Raises QueryTimeoutError after as long as a query may
        take, or at `until` (`time.monotonic`).
        """
        found = self.find(cursor, view, held, span, equalities)
        if not found.usable:
            return view
        try:
            table = self._read(found, sql, until)
        except (OSError, pa.ArrowException) as error:
            # A file that is gone: DuckDB says so, or finds that it is not needed.
            log.warning("needles: %s", error)
            return view
        except TooLargeError:
            return view
        cursor.register(_RELATION, table)
        return replace(view, apart=Apart(found.rows.keys(), _RELATION))

    def find(
        self,
        cursor: duckdb.DuckDBPyConnection,
        view: View,
        held: Held,
        span: Span,
        equalities: Sequence[Equality],
    ) -> Found:
        """The rows that can meet all of the conditions, in the files that are not `held` and may have a
        row of the `span`, [from, to) in epoch microseconds.
        """
        self._forget(view.silver)
        wanted = [
            (each.path, _keys(cursor, each.values))
            for each in equalities
            if len(each.values) <= _MOST_VALUES
        ]
        paths = [path for path in view.near(*span) if path not in held.paths]
        rows: dict[str, U64] = {}
        for path in paths if wanted else ():
            found = _rows_of(self._index(path), wanted)
            if found is not None:
                rows[path] = found
        return Found(rows, len(paths) - len(rows))

    def _forget(self, silver: Snapshot) -> None:
        """Files that went away: what is mapped takes room on the disk, and keeps what was deleted."""
        with self._lock:
            if silver.version <= self._version:
                return
            self._version = silver.version
            live = set(silver.paths)
            self._indexes = {p: found for p, found in self._indexes.items() if p in live}
        self._lake.footers.keep(live)

    def _read(self, found: Found, sql: str, until: float | None) -> pa.Table:
        names = [name for name in SCHEMA.names if re.search(rf"\b{name}\b", sql)]
        wanted = (
            Wanted(path, partial(_by_groups, rows))
            for path, rows in found.rows.items()
            if len(rows)
        )
        return self._few_rows.read(wanted, names, most_bytes=_MOST_BYTES, until=until)

    def _index(self, path: str) -> Mapping[str, Field]:
        found = self._indexes.get(path)
        if found is None and PurePosixPath(path).name.startswith(STAY):
            found = read_index(self._lake, path)
            # One that is not there may come.
            if found is not None:
                with self._lock:
                    self._indexes[path] = found
        return found or {}


def _keys(cursor: duckdb.DuckDBPyConnection, values: Sequence[str]) -> list[int]:
    sql = f"select {key_sql('value')} from (select unnest($values::varchar[]) as value)"
    return [int(key) for (key,) in cursor.execute(sql, {"values": list(values)}).fetchall()]


def _rows_of(index: Mapping[str, Field], wanted: Sequence[tuple[str, Sequence[int]]]) -> U64 | None:
    """The rows of a file that can meet all of the conditions, ascending; None where its index does not
    tell.
    """
    rows: U64 | None = None
    for path, keys in wanted:
        field = index.get(path)
        if field is None:
            continue
        found = [field.rows_of(key) for key in keys]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            continue
        some = known[0] if len(found) == 1 else np.unique(np.concatenate(known))
        rows = some if rows is None else np.intersect1d(rows, some)
    return rows


def _by_groups(found: U64, _file: pq.ParquetFile, footer: Footer) -> Iterator[tuple[int, Rows]]:
    """Rows of a file, ascending, by row groups."""
    rows = found.astype(np.int64)
    groups = np.searchsorted(footer.starts, rows, "right") - 1
    for group in np.unique(groups).tolist():
        yield group, rows[groups == group] - footer.starts[group]
