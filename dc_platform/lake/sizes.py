"""How large the tables are, and how well they are compressed.

`encoded` is what Parquet's encodings (dictionaries, differences) leave before ZSTD, from the files'
footers: 0.3 ms each. `raw` are the events as they were sent; bronze has them in a column of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow.parquet as pq

from dc_platform.contracts.tables import TableSpec
from dc_platform.lake.log_entries import LOG
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable

_RAW = "raw"
# Plain encoding: the length of each value before it.
_LENGTH_BYTES = 4


class Sizes(NamedTuple):
    """Of the live files of a table; `log_files` are its log's. `raw` is 0 where a table has none."""

    files: int
    rows: int
    bytes: int
    log_files: int
    encoded: int
    raw: int

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
    encoded = raw = 0
    for path in snapshot.paths:
        try:
            footer = pq.read_metadata(path)
        except OSError:
            # Replaced and deleted since the look: rare, and only a figure.
            continue
        for group in range(footer.num_row_groups):
            columns = footer.row_group(group)
            for number in range(columns.num_columns):
                column = columns.column(number)
                encoded += column.total_uncompressed_size
                if column.path_in_schema == _RAW:
                    plain = column.total_uncompressed_size - _LENGTH_BYTES * column.num_values
                    raw += max(0, plain)
    return Sizes(
        len(snapshot.paths),
        snapshot.rows,
        snapshot.bytes,
        len(lake.listing(spec, LOG)),
        encoded,
        raw,
    )
