"""How large the tables are, how well they are compressed, and what queries of them skip.

From the files' footers, 0.3 ms each. `encoded` is what Parquet's encodings (dictionaries, differences)
leave before ZSTD; `raw` are the events as they were sent, of which bronze has a column.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from dc_platform.contracts.tables import TableSpec
from dc_platform.lake.log_entries import LOG
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable

_RAW = "raw"
# Plain encoding: the length of each value before it.
_LENGTH_BYTES = 4
# What is asked for most often. A user is in the payload, and a type is in every group of rows.
_ASKED_FOR = ("source_id", "event_time")
_VALUES = 50


class Sizes(NamedTuple):
    """Of the live files of a table; `log_files` are its log's. `raw` is 0 where a table has none.

    `skipped`: column → the share of row groups that a query for one value of it need not read.
    """

    files: int
    rows: int
    bytes: int
    log_files: int
    encoded: int
    raw: int
    groups: int
    skipped: dict[str, float]

    @property
    def mean_file_bytes(self) -> int:
        """Of the live files; 0 when there are none."""
        return round(self.bytes / self.files) if self.files else 0

    def ratio(self, of: int) -> float:
        """How many times smaller than `of` bytes the table is; 0 for an empty one."""
        return round(of / self.bytes, 2) if self.bytes else 0.0


def sizes(lake: Lake, spec: TableSpec) -> Sizes:
    """Of the newest version of a table."""
    snapshot = LakeTable(lake, spec).snapshot()
    encoded = raw = groups = 0
    bounds: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    for path in snapshot.paths:
        try:
            footer = pq.read_metadata(path)
        except OSError:
            # Replaced and deleted since the look: rare, and only a figure.
            continue
        groups += footer.num_row_groups
        for group in range(footer.num_row_groups):
            columns = footer.row_group(group)
            for number in range(columns.num_columns):
                column = columns.column(number)
                encoded += column.total_uncompressed_size
                if column.path_in_schema == _RAW:
                    plain = column.total_uncompressed_size - _LENGTH_BYTES * column.num_values
                    raw += max(0, plain)
                elif column.path_in_schema in _ASKED_FOR:
                    found = column.statistics
                    if found is not None and found.has_min_max:
                        bounds[column.path_in_schema].append((found.min, found.max))
    return Sizes(
        len(snapshot.paths),
        snapshot.rows,
        snapshot.bytes,
        len(lake.listing(spec, LOG)),
        encoded,
        raw,
        groups,
        {column: _skipped(of, groups) for column, of in bounds.items()},
    )


def _skipped(bounds: list[tuple[Any, Any]], groups: int) -> float:
    """The share of row groups that bounds rule out, on average over values that are there."""
    values = [low for low, _ in bounds[:: max(1, len(bounds) // _VALUES)]]
    ruled_out = sum(not low <= value <= high for value in values for low, high in bounds)
    return round(ruled_out / (len(values) * groups), 3)
