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

from dc_platform.contracts.ops_tables import LANDING_BORDER
from dc_platform.errors import CommitConflictError
from dc_platform.lake.parquet import read_batches, write_file
from dc_platform.lake.table import LakeTable

_RETRIES = 10


def write_border(table: LakeTable, topic_id: str, offsets: Mapping[int, int], version: int) -> None:
    """Set the border of a topic in `table`, ops.landing_border, as of a version of silver; those of
    other topics stay.

    Of several writers the newest version stands, whoever is last: a border never goes back, and is
    never ahead of silver. One that loses every race leaves the border to the next commit.
    """
    for _ in range(_RETRIES):
        # 0.5 ms. The file of an older border may be gone, and its version from the log: of this table
        # 200 commits are kept, which eight slots make in a minute.
        table.refresh()
        known = _rows(table)
        of_topic = known.filter(pc.field("topic_id") == topic_id)
        if len(of_topic) and pc.max(of_topic["silver_version"]).as_py() > version:
            return
        # A writer that has not noticed an added partition keeps what the others said of it.
        partitions = of_topic["kafka_partition"].to_pylist()
        known_offsets = zip(partitions, of_topic["next_offset"].to_pylist(), strict=True)
        rows = _border(topic_id, {**dict(known_offsets), **offsets}, version)
        rows = pa.concat_tables([rows, known.filter(pc.field("topic_id") != topic_id)])
        file = write_file(table.lake, LANDING_BORDER, rows, partition=None)
        try:
            table.replace(None, [file], metadata={})
        except CommitConflictError:
            # The file stays where it is: a store that repeats a put may have committed it.
            continue
        return


def lands_now(table: LakeTable) -> tuple[str | None, list[int]]:
    """The topic that landed last, with its partitions; (None, []) when none ever did."""
    rows = _rows(table)
    if not len(rows):
        return None, []
    newest = rows.filter(pc.equal(rows["silver_version"], pc.max(rows["silver_version"])))
    topic_id = newest["topic_id"][0].as_py()
    return topic_id, newest["kafka_partition"].to_pylist()


def _border(topic_id: str, offsets: Mapping[int, int], version: int) -> pa.Table:
    size = len(offsets)
    return pa.table(
        [
            pa.array([topic_id] * size),
            pa.array(list(offsets), pa.int32()),
            pa.array(list(offsets.values()), pa.int64()),
            pa.array([version] * size, pa.int64()),
            pa.array([datetime.now(UTC)] * size, LANDING_BORDER.columns.field(4).type),
        ],
        schema=LANDING_BORDER.columns,
    )


def _rows(table: LakeTable) -> pa.Table:
    names = LANDING_BORDER.columns.names
    pieces = [piece for path in table.snapshot().paths for piece in read_batches(path, names)]
    if not pieces:
        return LANDING_BORDER.columns.empty_table()
    return pa.Table.from_batches(pieces).cast(LANDING_BORDER.columns)
