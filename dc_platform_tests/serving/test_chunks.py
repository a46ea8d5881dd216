"""Pieces of the tail against a naive model: a list of rows that can be looked at one by one."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import whole
from dc_platform.lake.table import Snapshot
from dc_platform.landing.keys import KeyMaker, Keys
from dc_platform.serving.chunks import Chunk, merged
from dc_platform.serving.view import SCHEMA, View
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.lake import silver_row

MAKER = KeyMaker()
CONNECTION = duckdb.connect(config={"threads": 1})
Row = tuple[str, str, int, int]  # source, id, partition, offset


def table_of(rows: list[Row], *, dictionaries: bool) -> pa.Table:
    """Rows as the tail has them: without `processed_at`, strings maybe as dictionaries."""
    columns = [name for name in SCHEMA.names if name != "processed_at"]
    made = [
        silver_row(source_id=s, event_id=e, kafka_partition=p, kafka_offset=o)
        for s, e, p, o in rows
    ]
    table = pa.Table.from_pylist(made, schema=SCHEMA).select(columns)
    if dictionaries:
        for name in ("source_id", "tenant_id", "event_type"):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, table[name].dictionary_encode())
    return table.combine_chunks()


def keys_of(rows: list[Row]) -> Keys:
    return MAKER.keys(
        pa.array([row[0] for row in rows], pa.string()),
        pa.array([row[1] for row in rows], pa.string()),
    )


def chunk_of(rows: list[Row], *, dictionaries: bool = False) -> Chunk:
    return Chunk.of(table_of(rows, dictionaries=dictionaries), keys_of(rows))


def rows_of(view: View) -> list[Row]:
    """What a query over the tail of a view sees."""
    CONNECTION.register("tail", view.tail)
    columns = "source_id, event_id, kafka_partition, kafka_offset"
    return sorted(CONNECTION.execute(f"select {columns} from ({view.union_sql()})").fetchall())


def view_of(chunks: list[Chunk], border: dict[int, int]) -> View:
    empty = Snapshot(0, pa.table({"path": pa.array([], pa.string())}), "/nowhere")
    return View(empty, border, tuple(chunks))


ids = st.integers(0, 30).map(some_uuid)
identities = st.tuples(st.sampled_from(("a", "b")), ids)
row_lists = st.lists(
    st.tuples(st.sampled_from(("a", "b")), ids, st.integers(0, 2), st.integers(0, 20)),
    min_size=1,
    max_size=15,
    unique_by=(lambda row: row[:2], lambda row: row[2:]),
)
borders = st.dictionaries(st.integers(0, 2), st.integers(0, 22))


@given(row_lists, st.lists(identities, max_size=20), st.booleans())
def test_look_ups_agree_with_a_list(
    rows: list[Row], asked: list[tuple[str, str]], dictionaries: bool
) -> None:
    chunk = chunk_of(rows, dictionaries=dictionaries)
    keys = keys_of([(source, event, 0, 0) for source, event in asked])
    held = {row[:2] for row in rows}
    assert chunk.contains(keys).tolist() == [identity in held for identity in asked]
    expected = [number for number, row in enumerate(rows) if row[:2] in set(asked)]
    assert sorted(chunk.find(keys).tolist()) == expected
    assert chunk.rows == len(rows)


words = st.integers(0, 2).map(np.uint64)
pairs = st.lists(st.tuples(words, words), min_size=1, max_size=9, unique=True)


@given(pairs, st.lists(st.tuples(words, words), max_size=9))
def test_identities_that_share_a_word_are_told_apart(
    held: list[tuple[Any, Any]], asked: list[tuple[Any, Any]]
) -> None:
    def keys(found: list[tuple[Any, Any]]) -> Keys:
        high, low = ([pair[side] for pair in found] for side in (0, 1))
        return Keys(np.array(high, np.uint64), np.array(low, np.uint64))

    rows = [("a", some_uuid(number), 0, number) for number in range(len(held))]
    chunk = Chunk.of(table_of(rows, dictionaries=False), keys(held))
    assert chunk.contains(keys(asked)).tolist() == [pair in held for pair in asked]
    expected = [number for number, pair in enumerate(held) if pair in asked]
    assert sorted(chunk.find(keys(asked)).tolist()) == expected


@dataclass
class Model:
    """The tail as a list of rows."""

    rows: list[Row] = field(default_factory=list)
    border: dict[int, int] = field(default_factory=dict)

    def visible(self) -> list[Row]:
        return sorted(row for row in self.rows if row[3] >= self.border.get(row[2], 0))


@given(st.data())
@settings(max_examples=40)
def test_any_sequence_of_operations(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("tail")
    model = Model()
    chunks: list[Chunk] = []
    views: list[tuple[View, list[Row]]] = []
    steps = data.draw(
        st.lists(st.sampled_from(("take", "land", "drop", "spill", "merge")), max_size=12)
    )
    for number, step in enumerate(steps):
        if step == "take":
            taken = data.draw(row_lists)
            old = {row[:2] for row in model.rows} | {row[2:] for row in model.rows}
            fresh = [
                row
                for row in taken
                if row[:2] not in old
                and row[2:] not in old
                and row[3] >= model.border.get(row[2], 0)
            ]
            if fresh:
                chunks.append(chunk_of(fresh, dictionaries=data.draw(st.booleans())))
                model.rows += fresh
        elif step == "land":
            for partition, offset in data.draw(borders).items():
                model.border[partition] = max(offset, model.border.get(partition, 0))
            kept = [chunk.above(model.border) for chunk in chunks]
            chunks = [chunk for chunk in kept if chunk is not None]
        elif step == "drop":
            gone = data.draw(st.lists(identities, max_size=6))
            keys = keys_of([(source, event, 0, 0) for source, event in gone])
            kept = [chunk.without(chunk.find(keys)) for chunk in chunks]
            chunks = [chunk for chunk in kept if chunk is not None]
            model.rows = [row for row in model.rows if row[:2] not in set(gone)]
        elif step == "spill" and chunks:
            at = data.draw(st.integers(0, len(chunks) - 1))
            if chunks[at].table is not None:
                chunks[at] = chunks[at].spill(directory, f"tail-{number}")
        elif step == "merge":
            memory = [chunk for chunk in chunks if chunk.table is not None]
            if len(memory) > 1:
                rest = [chunk for chunk in chunks if chunk.table is None]
                chunks = [*rest, merged(memory)]
        view = view_of(chunks, dict(model.border))
        assert rows_of(view) == model.visible()
        views.append((view, model.visible()))
    # A query that began earlier still sees what it saw.
    for view, expected in views:
        assert rows_of(view) == expected


def test_a_border_that_cuts_a_chunk_in_memory_makes_it_smaller() -> None:
    rows = [("a", some_uuid(n), n % 2, n) for n in range(10)]
    chunk = chunk_of(rows)
    assert chunk.spans == {0: (0, 8), 1: (1, 9)}
    assert chunk.above({0: 0}) is chunk
    cut = chunk.above({0: 4, 1: 100})
    assert cut is not None
    assert cut.spans == {0: (4, 8)}
    assert cut.rows == 3
    assert cut.bytes < chunk.bytes
    assert chunk.above({0: 9, 1: 10}) is None
    # A partition that the border does not know has landed nothing.
    assert chunk.above({5: 99}) is chunk


def test_a_spilled_chunk_keeps_its_identities_and_frees_its_rows(tmp_path: Path) -> None:
    rows = [("a", some_uuid(n), 0, n) for n in range(10)]
    chunk = chunk_of(rows)
    spilled = chunk.spill(tmp_path, "tail-1")
    assert spilled.table is None
    assert spilled.bytes == 20 * 10 < chunk.bytes
    assert spilled.contains(keys_of(rows)).all()
    assert spilled.above({0: 5}) is spilled
    assert spilled.above({0: 10}) is None
    assert spilled.file is not None
    path = spilled.file.path
    assert spilled.file.bytes == path.stat().st_size
    assert pa.parquet.read_schema(path).names == SILVER_EVENTS.file_schema.names
    without = spilled.without(np.array([2, 3]))
    assert without is not None
    view = view_of([without], {0: 2})
    del spilled, without
    gc.collect()
    assert path.exists()
    assert sorted(row[3] for row in rows_of(view)) == [4, 5, 6, 7, 8, 9]
    del view
    gc.collect()
    assert not path.exists()


def test_missing_columns_are_null() -> None:
    table = whole(table_of([("a", some_uuid(1), 0, 1)], dictionaries=True), SCHEMA)
    assert table.schema == SCHEMA
    assert table["processed_at"].null_count == 1
    assert table["source_id"].to_pylist() == ["a"]
