"""`ops.landing_border`: the border of the union for engines that cannot read Delta's txns (Trino).

It is written after each silver commit and replaces itself: one row per partition, one file. A reader
that takes both branches from the same border sees each event once, also while the border lags.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from dc_platform.contracts.tables import LANDING_BORDER
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.store import Lake


def write_border(lake: Lake, topic_id: str, offsets: Mapping[int, int], version: int) -> None:
    """Set the border of a topic. A concurrent writer's newer border wins."""
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
    try:
        write_deltalake(DeltaTable(lake.uri_of(LANDING_BORDER)), rows, mode="overwrite")
    except CommitFailedError:
        return
    except (DeltaError, OSError) as error:
        raise StoreUnavailableError(f"writing the landing border failed: {error}") from error
