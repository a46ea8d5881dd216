"""Data files with identities, and indexes of them, for the tests of look-ups."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.lake.table import Snapshot
from dc_platform.landing.identities import IdentityIndex
from dc_platform.landing.keys import KeyMaker, Keys

MAKER = KeyMaker()
Row = tuple[str | None, str, int]  # source, id, scope


def keys_of(rows: list[Row], maker: KeyMaker = MAKER) -> Keys:
    return maker.keys(
        pa.array([source for source, _, _ in rows], pa.string()),
        pa.array([event for _, event, _ in rows], pa.string()),
    )


def scopes_of(rows: list[Row]) -> np.ndarray:
    return np.array([scope for _, _, scope in rows], np.int64)


class Files:
    """Data files with the columns that are looked up, and snapshots of them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[tuple[str, list[Row]]] = []

    def write(self, rows: list[Row]) -> str:
        name = f"part-{uuid.uuid4()}.parquet"
        table = pa.table(
            {
                "source_id": pa.array([row[0] for row in rows], pa.string()),
                "event_id": pa.array([row[1] for row in rows], pa.string()),
                "dedup_scope": pa.array([row[2] for row in rows], pa.int32()),
            }
        )
        pq.write_table(table, self.root / name)
        self.files.append((name, rows))
        return f"{self.root}/{name}"

    def snapshot(self, *, statistics: bool = True) -> Snapshot:
        bounds = [
            (min(r[2] for r in rows), max(r[2] for r in rows)) if statistics else (None, None)
            for _, rows in self.files
        ]
        actions = pa.table(
            {
                "path": pa.array([name for name, _ in self.files], pa.string()),
                "min.dedup_scope": pa.array([low for low, _ in bounds], pa.int32()),
                "max.dedup_scope": pa.array([high for _, high in bounds], pa.int32()),
                "num_records": pa.array([len(rows) for _, rows in self.files], pa.int64()),
                "modification_time": pa.array(range(len(self.files)), pa.int64()),
            }
        )
        return Snapshot(len(self.files), actions, str(self.root))

    def rows(self) -> list[Row]:
        return [row for _, rows in self.files for row in rows]


def index(limit: int = 1 << 20) -> IdentityIndex:
    made = IdentityIndex(MAKER, id_column="event_id", memory_mb=1)
    made._limit = limit
    return made
