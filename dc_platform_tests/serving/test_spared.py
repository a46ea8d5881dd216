"""What is known of the files spares looking at each row: at its tenant, at its weight. Answers are the
same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.serving.answers import answer
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.query import Query
from dc_platform.serving.view import View
from dc_platform_tests.helpers.lake import silver_row, silver_table, write_silver
from dc_platform_tests.helpers.serving import MAKER, Served

TENANTS = ("default", "other", "defau", "default2")


Values = Sequence[object]


def rows(values: Values, first: int, column: str) -> list[dict[str, object]]:
    return [silver_row(first + n, **{column: value}) for n, value in enumerate(values)]


def committed(lake: Lake, files: Sequence[Values], column: str = "tenant_id") -> Snapshot:
    lake.ensure(SILVER_EVENTS)
    table = LakeTable(lake, SILVER_EVENTS)
    written = [write_silver(lake, rows(values, 10 * n, column)) for n, values in enumerate(files)]
    if written:
        table.commit(written, txns={}, exact=True)
    return LakeTable(lake, SILVER_EVENTS).snapshot()


def chunk(values: Values, number: int, column: str = "tenant_id") -> Chunk:
    table = silver_table(rows(values, 1000 + 10 * number, column))
    return Chunk.of(table, MAKER.keys(table["source_id"], table["event_id"]))


# Files, chunks in memory, a chunk on disk; and whether rows have to be looked at.
CASES: list[tuple[list[list[str]], list[list[str]], list[str], bool]] = [
    ([], [], [], True),
    ([["default"], ["default", "default"]], [], [], False),
    ([["default"], ["default"]], [["default"]], [], False),
    ([], [["default", "default"]], [], False),
    ([["default"], ["other"]], [], [], True),
    ([["default", "other"]], [], [], True),
    ([["default", "default2"], ["default"]], [], [], True),
    ([["default"]], [["other"]], [], True),
    ([["default"]], [["default", "other"]], [], True),
    ([["default"]], [["default"]], ["default"], False),
    ([["default"]], [], ["other"], True),
]


@pytest.mark.parametrize(("files", "tail", "spilled", "looked_at"), CASES)
def test_each_tenant_gets_its_rows(
    tmp_path: Path,
    files: list[list[str]],
    tail: list[list[str]],
    spilled: list[str],
    looked_at: bool,
) -> None:
    served = Served(tmp_path)
    chunks = [chunk(tenants, n) for n, tenants in enumerate(tail)]
    if spilled:
        served.tail_directory.mkdir(parents=True, exist_ok=True)
        chunks.append(chunk(spilled, 9).spill(served.tail_directory, "spilled"))
    served.view = view = View(committed(served.lake, files), {}, tuple(chunks))
    everybody = [*itertools.chain(*files, *tail), *spilled]
    for tenant in TENANTS:
        own = everybody.count(tenant)
        query = Query.model_validate({"aggregations": [{"function": "COUNT"}]})
        counted = answer(served.engine, view, query, tenant_id=tenant)
        assert counted["results"] == [{"count": own}]
        assert served.sql("select count(*) from events", tenant=tenant) == [(own,)]
        landed = list(itertools.chain(*files)).count(tenant)
        assert served.sql("select count(*) from silver.events", tenant=tenant) == [(landed,)]
    assert ("tenant_id = 'default'" in view.events_sql("default")) == looked_at
    assert "tenant_id = 'other'" in view.events_sql("other")


def test_what_was_deleted_stays_hidden(tmp_path: Path) -> None:
    served = Served(tmp_path)
    snapshot = committed(served.lake, [["default"], ["default"]])
    served.view = View(snapshot, {}, hidden="kafka_offset = 0")
    assert "is not true" in served.view.events_sql("default")
    assert served.sql("select count(*) from events") == [(1,)]


def test_files_of_which_the_log_says_nothing_are_looked_at(tmp_path: Path) -> None:
    snapshot = committed(Lake(str(tmp_path)), [["default"]])
    assert snapshot.sole("tenant_id") == "default"
    for name in ("min.tenant_id", "max.tenant_id", "null_count.tenant_id"):
        less = Snapshot(snapshot.version, snapshot.actions.drop_columns([name]), snapshot.root)
        assert less.sole("tenant_id") is None
    assert "tenant_id = 'default'" in View(less, {}).events_sql("default")


@pytest.mark.parametrize(
    ("files", "tail", "count", "sampled"),
    [
        ([], [], 0, False),
        ([[1.0, 1.0], [1.0]], [1.0], 4, False),
        ([[1.0, 0.5], [1.0]], [], 4, True),
        ([[1.0], [0.5]], [1.0], 4, True),
        ([[1.0]], [0.1, 1.0], 12, True),
        ([[1.0], [None]], [1.0], 3, True),
    ],
)
def test_each_event_has_its_weight(
    tmp_path: Path, files: list[list[float]], tail: list[float], count: int, sampled: bool
) -> None:
    served = Served(tmp_path)
    chunks = (chunk(tail, 0, "sample_rate"),) if tail else ()
    view = View(committed(served.lake, files, "sample_rate"), {}, chunks)
    query = Query.model_validate({"aggregations": [{"function": "COUNT"}]})
    found = answer(served.engine, view, query, tenant_id="default")
    assert found["results"] == [{"count": count}]
    assert view.sampled == sampled
