"""Flags of accepted events that follow from their columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dc_platform.contracts.tables import FLAGS

LATE = "late"


def with_lateness(table: pa.Table, late_ms: int) -> pa.Table:
    """A judged table with the flag `late` on what was received more than `late_ms` after its own
    time; before other flags.
    """
    own, received = (
        table[name].cast(pa.int64()).fill_null(0).to_numpy()
        for name in ("event_time", "received_at")
    )
    late = table["event_time"].is_valid().to_numpy() & (received - own > late_ms * 1000)
    if not late.any():
        return table
    at = table.schema.get_field_index("flags")
    return table.set_column(at, "flags", _with(table["flags"], late))


def _with(flags: pa.ChunkedArray, late: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> pa.Array:
    if flags.null_count == len(flags):
        offsets = np.concatenate([[0], np.cumsum(late)]).astype(np.int32)
        values = pa.array([LATE] * int(offsets[-1]), pa.string())
        return pa.ListArray.from_arrays(pa.array(offsets), values, FLAGS, mask=pa.array(~late))
    given = flags.to_pylist()
    return pa.array(
        [
            [LATE, *(have or ())] if is_late else have
            for have, is_late in zip(given, late, strict=True)
        ],
        FLAGS,
    )
