"""A view of the union without Kafka: some records landed, others still in the tail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa

from dc_platform.broker.records import Record
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import is_valid, mask_rows
from dc_platform.landing.batch_commit import app_id
from dc_platform.landing.keys import KeyMaker
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.engine import Engine
from dc_platform.serving.search import Search
from dc_platform.serving.view import SCHEMA, View
from dc_platform.settings import Settings
from dc_platform_tests.helpers.landing import INFO, batch, committer, decoder

MAKER = KeyMaker()
# 64 MB are too little for this query.
SPILLING = (
    "select count(*) from (select md5(range::varchar) || repeat('x', 20) as k, count(*) as n"
    " from range(1000000) group by k having n = 1)"
)


def chunk(records: Sequence[Record], maker: KeyMaker = MAKER) -> Chunk:
    """A chunk of the valid events of the records."""
    judged = decoder().decode(records)
    rows = mask_rows(judged, is_valid(judged))
    names = [name for name in SCHEMA.names if name in rows.column_names]
    table = rows.select(names).combine_chunks()
    return Chunk.of(table, maker.keys(table["source_id"], table["event_id"]))


def view(
    lake: Lake,
    landed: Sequence[Record],
    tail: Sequence[Sequence[Record]] = (),
    *,
    spill: Path | None = None,
) -> View:
    """A view of a lake into which `landed` has landed; each of `tail` is a chunk of its own."""
    writer = committer(lake)
    if landed:
        writer.land(batch(landed))
    writer.close()
    table = LakeTable(lake, SILVER_EVENTS)
    border = {p: table.txn(app_id(SILVER_EVENTS, INFO, p)) or 0 for p in (0, 1)}
    chunks = [chunk(records) for records in tail]
    if spill is not None:
        spill.mkdir(parents=True, exist_ok=True)
        chunks = [part.spill(spill, f"tail-{n}") for n, part in enumerate(chunks)]
    return View(table.snapshot(), border, tuple(chunks))


def table_of(answer: AbstractContextManager[Iterator[bytes]]) -> pa.Table:
    """The rows of an answer that the engine gives as Arrow."""
    with answer as parts:
        return pa.ipc.open_stream(b"".join(parts)).read_all()


class Served:
    """An engine over a view."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.settings = Settings(data_dir=directory, **settings)
        self.lake = Lake(self.settings.lake)
        self.engine = Engine(self.settings, self.lake)
        self.search = Search(self.settings, self.lake, self.engine)
        self.view: View | None = None

    @property
    def tail_directory(self) -> Path:
        """Where chunks may be spilled to."""
        return self.settings.data_dir.absolute() / "tail"

    def sql(self, text: str, *parameters: Any, tenant: str = "default") -> list[tuple[Any, ...]]:
        """Rows of a query that a person wrote."""
        table = self.table(text, *parameters, tenant=tenant)
        columns = [column.to_pylist() for column in table.columns]
        return list(zip(*columns, strict=True))

    def table(self, text: str, *parameters: Any, tenant: str = "default") -> pa.Table:
        """The result of a query that a person wrote, as Arrow."""
        assert self.view is not None
        return table_of(
            self.engine.run_sql(text, self.view, tenant_id=tenant, parameters=parameters)
        )
