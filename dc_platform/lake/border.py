"""`ops.landing_border`: the border of the union for engines that cannot read Delta's txns (Trino).

It is written after each silver commit, as one file that replaces the one before: a row per partition
of each topic that ever landed. A topic that was deleted keeps its last border, for backfills. A reader
that takes both branches from the same border sees each event once, also while the border lags.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.tables import LANDING_BORDER
from dc_platform.errors import CommitConflictError
from dc_platform.lake.parquet import read_batches, write_file
from dc_platform.lake.table import LakeTable


def write_border(table: LakeTable, topic_id: str, offsets: Mapping[int, int], version: int) -> None:
    """Set the border of a topic in `table`, ops.landing_border; those of other topics stay.

    Of two writers at once the first one's border stands, be it the older one: a border may lag behind
    silver until the next commit, and is never ahead of it.
    """
    table.refresh()
    size = len(offsets)
    rows = pa.table(
        [
            pa.array([topic_id] * size),
            pa.array(list(offsets), pa.int32()),
            pa.array(list(offsets.values()), pa.int64()),
            pa.array([version] * size, pa.int64()),
            pa.array([datetime.now(UTC)] * size, LANDING_BORDER.columns.field(4).type),
        ],
        schema=LANDING_BORDER.columns,
    )
    rows = pa.concat_tables([rows, *_others(table, topic_id)])
    file = write_file(table.lake, LANDING_BORDER, rows, partition=None)
    try:
        table.replace_all(file, metadata={})
    except CommitConflictError:
        # The file stays where it is: a store that repeats a put may have committed it.
        return


def _others(table: LakeTable, topic_id: str) -> list[pa.Table]:
    names = LANDING_BORDER.columns.names
    pieces = [piece for path in table.snapshot().paths for piece in read_batches(path, names)]
    if not pieces:
        return []
    rows = pa.Table.from_batches(pieces)
    return [rows.filter(pc.field("topic_id") != topic_id).cast(LANDING_BORDER.columns)]
