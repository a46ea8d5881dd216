"""A served lake whose events are of the last minutes, as monitoring looks at them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from dc_platform.contracts.ops_tables import LEDGER
from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TableSpec,
)
from dc_platform.lake.parquet import write_file
from dc_platform.lake.table import LakeTable
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.view import View
from dc_platform_tests.helpers.lake import DAY, silver_row, silver_table
from dc_platform_tests.helpers.serving import MAKER, Served

Row = dict[str, Any]


class Recent(Served):
    """Rows are landed, left waiting or rejected; `look` makes the view of what there is."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.now_ms = time.time_ns() // 1_000_000
        self._numbers = iter(range(10**9))
        self._waiting: list[Chunk] = []
        for spec in (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, LEDGER):
            self.lake.ensure(spec)
        self.look()

    def event(
        self,
        ago_ms: int,
        took_ms: int | None = 1000,
        *,
        source: str = "s",
        kind: str = "t",
        tenant: str = "default",
        partition: int = 0,
        payload: str = "{}",
    ) -> Row:
        """An event that was received so long ago; it took so long to land, or waits."""
        received = self.now_ms - ago_ms
        return silver_row(
            next(self._numbers),
            tenant_id=tenant,
            source_id=source,
            event_type=kind,
            payload=payload,
            received_at=received * 1000,
            event_time=received * 1000,
            processed_at=None if took_ms is None else (received + took_ms) * 1000,
            kafka_partition=partition,
        )

    def land(self, rows: Sequence[Row]) -> None:
        """Commit rows as one file of silver."""
        self._append(SILVER_EVENTS, silver_table(rows))

    def wait(self, rows: Sequence[Row]) -> None:
        """Leave rows in the tail, as one chunk."""
        table = silver_table(rows)
        self._waiting.append(Chunk.of(table, MAKER.keys(table["source_id"], table["event_id"])))

    def reject(self, ago_ms: Iterable[int], reason: str, *, tenant: str = "default") -> None:
        """Commit rejected events as one file of quarantine."""
        rows = [
            {
                "tenant_id": tenant,
                "source_id": "s",
                "quarantine_id": str(next(self._numbers)),
                "reason": reason,
                "message": "what was wrong",
                "received_at": (self.now_ms - ago) * 1000,
                "processed_at": (self.now_ms - ago) * 1000,
                "kafka_partition": 0,
                "kafka_offset": 0,
                "kafka_index": 0,
            }
            for ago in ago_ms
        ]
        schema = SILVER_QUARANTINE.file_schema
        self._append(SILVER_QUARANTINE, pa.Table.from_pylist(rows, schema=schema))

    def keep(self, ago_ms: int, verdicts: Iterable[str]) -> None:
        """Commit rows with these verdicts as one file of bronze."""
        at = (self.now_ms - ago_ms) * 1000
        row = {"tenant_id": "default", "source_id": "s", "received_at": at, "processed_at": at}
        address = {"kafka_partition": 0, "kafka_offset": 0, "kafka_index": 0}
        rows = [{**row, **address, "verdict": verdict} for verdict in verdicts]
        schema = BRONZE_EVENTS.file_schema
        self._append(BRONZE_EVENTS, pa.Table.from_pylist(rows, schema=schema))

    def balance(self, **columns: Any) -> None:
        """Commit one row of the ledger, of this hour."""
        at = datetime.fromtimestamp(self.now_ms / 1000, UTC)
        figures = {f.name: 0 for f in LEDGER.columns if pa.types.is_integer(f.type)}
        row = {
            "tenant_id": "default",
            "source_id": "s",
            "hour": at.replace(minute=0, second=0, microsecond=0),
            "topic_id": "topic",
            **figures,
            "processed_at": at,
            **columns,
        }
        self._append(LEDGER, pa.Table.from_pylist([row], schema=LEDGER.file_schema))

    def look(self) -> View:
        """The view of everything until now."""
        snapshot = LakeTable(self.lake, SILVER_EVENTS).snapshot()
        self.view = View(snapshot, {0: 0, 1: 0}, tuple(self._waiting))
        return self.view

    def _append(self, spec: TableSpec, table: pa.Table) -> None:
        file = write_file(self.lake, spec, table, partition=DAY)
        LakeTable(self.lake, spec).commit([file], txns={}, exact=True)
