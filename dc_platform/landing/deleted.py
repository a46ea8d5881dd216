"""Events that were deleted and come again: of each only its address lands, in bronze.

Deletions write the identities that could come again to `ops.tombstones` before they take anything out
of a table. So whoever looks at the tombstones after it took its snapshot of silver knows all that this
snapshot lacks. Without tombstones a look costs one question for a file, 10 µs.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from dc_platform.contracts import blocks
from dc_platform.contracts.ops_tables import TOMBSTONES
from dc_platform.contracts.tables import JUDGED, STUB_COLUMNS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import has_verdict, mask_rows, scopes_of
from dc_platform.landing.identities import IdentityIndex, Scopes
from dc_platform.landing.keys import KeyMaker, Keys, Mask

# Identities of the scopes that a batch touches: 14 million in a bitmap; past that their files are
# searched.
_MEMORY_MB = 16
# How soon a newer version is found of which the log no longer has the first entries.
_REFRESH_SECONDS = 10.0


class DeletedIdentities:
    """The identities in `ops.tombstones`. Not thread-safe. `maker` makes them as silver's."""

    def __init__(self, lake: Lake, maker: KeyMaker, *, spill_directory: Path | None = None) -> None:
        lake.ensure(TOMBSTONES)
        self._maker = maker
        self._table = LakeTable(lake, TOMBSTONES)
        self._snapshot = self._table.snapshot()
        self._next_refresh = 0.0
        self._index = IdentityIndex(
            maker,
            id_column="event_id",
            memory_mb=_MEMORY_MB,
            spill_directory=spill_directory,
        )

    def known(self, keys: Keys, scopes: Scopes) -> Mask:
        """Which of `keys`, whose scopes are `scopes`, were deleted, as of now."""
        if not self._any() or not len(keys):
            return np.zeros(len(keys), bool)
        return self._index.known(keys, scopes, self._snapshot)

    def stubbed(self, judged: pa.Table) -> pa.Table:
        """`judged` with nothing but the address of what was deleted; `judged` itself where there is
        none of it.
        """
        if not self._any() or not len(judged):
            return judged
        gone = np.zeros(len(judged), bool)
        for verdict, column in ((blocks.VALID, "event_id"), (blocks.REJECTED, "quarantine_id")):
            chosen = has_verdict(judged, verdict)
            if chosen.any():
                rows = mask_rows(judged.select(["source_id", column, "dedup_scope"]), chosen)
                keys = self._maker.keys(rows["source_id"], rows[column])
                gone[np.flatnonzero(chosen)] = self.known(keys, scopes_of(rows))
        return stubs(judged, gone) if gone.any() else judged

    def _any(self) -> bool:
        now = time.monotonic()
        if now >= self._next_refresh or self._table.may_have_moved:
            self._next_refresh = now + _REFRESH_SECONDS
            before = self._table.version
            if self._table.refresh() != before:
                self._snapshot = self._table.snapshot()
        return bool(self._snapshot.paths)


def stubs(judged: pa.Table, gone: Mask) -> pa.Table:
    """`judged` in which the rows of `gone` keep their address and lose what they hold."""
    plain = judged.cast(JUDGED)
    lost = plain.filter(pa.array(gone))
    columns = [
        lost[field.name]
        if field.name in STUB_COLUMNS
        else pa.nulls(len(lost), field.type)
        if field.name != "verdict"
        else pa.array([blocks.DELETED] * len(lost), field.type)
        for field in JUDGED
    ]
    kept = plain.filter(pa.array(~gone))
    order = np.argsort(np.concatenate([np.flatnonzero(~gone), np.flatnonzero(gone)]))
    both = pa.concat_tables([kept, pa.table(columns, schema=JUDGED)])
    return both.take(pa.array(order))
