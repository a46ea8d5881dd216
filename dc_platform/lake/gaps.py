"""`ops.gaps`: offsets that Kafka no longer had before they landed, each once, for ever.

They are also in the metadata of the commits, but a log is cleaned up, and a crash between bronze's
commit and silver's leaves nothing in silver's. So they are written before anything is committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import pyarrow as pa

from dc_platform.contracts.ops_tables import GAPS
from dc_platform.errors import CommitConflictError
from dc_platform.lake.parquet import read_batches, write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable

EXPIRED = "expired"
# A topic that had records before the platform met it may have lost its first ones long ago.
BEFORE_FIRST = "before the first landing"
# The topic was deleted with what had not landed, as far as its end was known.
DELETED = "topic deleted"
_RETRIES = 20


class KnownGap(NamedTuple):
    """Offsets [start, end) of a partition that are in no table, and why."""

    topic_id: str
    partition: int
    start: int
    end: int
    why: str


def known_gaps(lake: Lake) -> list[KnownGap]:
    """All that are on record."""
    return _rows(LakeTable(lake, GAPS)) if lake.exists(GAPS) else []


def record_gaps(lake: Lake, gaps: Sequence[KnownGap], at: datetime) -> None:
    """Put on record what is not yet; safe to repeat, and for several writers at once."""
    table = LakeTable(lake, GAPS)
    for _ in range(_RETRIES):
        known = {gap[:4] for gap in _rows(table)}
        fresh = [gap for gap in dict.fromkeys(gaps) if gap[:4] not in known]
        if not fresh:
            return
        columns = [list(column) for column in zip(*fresh, strict=True)]
        arrays = [*columns, [at] * len(fresh)]
        rows = pa.table(
            [pa.array(a, f.type) for a, f in zip(arrays, GAPS.columns, strict=True)],
            schema=GAPS.columns,
        )
        file = write_file(lake, GAPS, rows, partition=None)
        try:
            table.commit([file], txns={}, exact=True)
        except CommitConflictError:
            # The file stays where it is: a store that repeats a put may have committed it.
            table.refresh()
            continue
        return
    raise CommitConflictError("ops.gaps: too many conflicting commits; trying again later")


def _rows(table: LakeTable) -> list[KnownGap]:
    names = GAPS.columns.names[:5]
    return [
        KnownGap(*row.values())
        for path in table.snapshot().paths
        for piece in read_batches(path, names)
        for row in piece.to_pylist()
    ]
