"""Answers that are kept: never stale, bounded, and of a closed range still there when others change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dc_platform.serving.cache import ResultCache
from dc_platform.serving.rows import all_rows
from dc_platform.serving.view import View
from dc_platform_tests.gold.lakes import delete, land
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.lake import silver_row
from dc_platform_tests.serving.planned import Planned

START = NOW - NOW % HOUR
FIRST_HOUR = {"from": START, "to": START + HOUR}


def at(number: int, hours: float, **columns: Any) -> dict[str, Any]:
    return silver_row(number, event_time=(START + int(hours * HOUR)) * 1000, **columns)


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    made = Planned(tmp_path)
    land(made.lake, [at(1, 0), at(2, 0.5)])
    return made


def asked(planned: Planned, view: View, **query: Any) -> tuple[int, str]:
    """The count, and whether it was kept."""
    query = {"aggregations": [{"function": "COUNT"}], **query}
    answer = planned.ask(view, explain=True, **query)
    return answer["results"][0]["count"], answer["plan"]["statements"][0]["cache"]


def test_what_was_asked_before_is_kept_until_its_rows_change(planned: Planned) -> None:
    view = planned.view()
    assert asked(planned, view) == (2, "miss")
    assert asked(planned, view) == (2, "hit")
    assert asked(planned, view, tenant="other") == (0, "miss")
    assert asked(planned, view, **FIRST_HOUR) == (2, "miss")
    land(planned.lake, [at(3, 5)])
    assert asked(planned, planned.view()) == (3, "miss")
    # Nothing came into that hour.
    assert asked(planned, planned.view(), **FIRST_HOUR) == (2, "hit")
    land(planned.lake, [at(4, 0.25)])
    assert asked(planned, planned.view(), **FIRST_HOUR) == (3, "miss")
    delete(planned.lake, lambda row: int(row["kafka_offset"]) == 1)
    assert asked(planned, planned.view(), **FIRST_HOUR) == (2, "miss")
    # A query of the version before has its own.
    assert asked(planned, view, **FIRST_HOUR) == (2, "hit")


def test_the_tail_changes_what_it_may_have_rows_of(planned: Planned) -> None:
    assert asked(planned, planned.view(), **FIRST_HOUR) == (2, "miss")
    later = planned.view([at(10, 3)], [at(11, 4)], spill="later")
    assert asked(planned, later, **FIRST_HOUR) == (2, "hit")
    within = planned.view([at(12, 0.5)])
    assert asked(planned, within, **FIRST_HOUR) == (3, "miss")
    assert asked(planned, within, **FIRST_HOUR) == (3, "hit")
    spilled = planned.view([at(12, 0.5)], [at(13, 0.6), at(14, 0.7)], spill="within")
    assert asked(planned, spilled, **FIRST_HOUR) == (5, "miss")
    [chunk] = [chunk for chunk in spilled.chunks if chunk.file is not None]
    cut = View(spilled.silver, {0: 14}, spilled.chunks)
    assert chunk.spans == {0: (13, 14)}
    assert asked(planned, cut, **FIRST_HOUR) == (4, "miss")


def test_what_the_results_are_called_makes_no_other_question(planned: Planned) -> None:
    view = planned.view()
    named = {"aggregations": [{"function": "COUNT", "as": "events"}]}
    assert asked(planned, view) == (2, "miss")
    answer = planned.ask(view, explain=True, **named)
    assert answer["results"] == [{"events": 2}]
    assert answer["plan"]["statements"][0]["cache"] == "hit"


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_it_is_bounded_and_the_oldest_goes_first() -> None:
    cache = ResultCache(100_000)
    tables = {n: pa.table({"c": pa.array(range(1000), pa.int64())}) for n in range(20)}
    for n, table in tables.items():
        cache.put(key(n), table)
        assert cache.get(key(0)) == tables[0]
        assert cache.size_bytes <= 100_000
    assert cache.get(key(1)) is None
    assert cache.get(key(19)) == tables[19]
    cache.put(key(99), pa.table({"c": pa.array(range(2000), pa.int64())}))
    assert cache.get(key(99)) is None
    assert (cache.hits, cache.misses) == (21, 2)


def test_what_goes_is_counted_as_it_was_when_it_came() -> None:
    cache = ResultCache(100_000)
    with duckdb.connect() as connection:
        # DuckDB's tables are larger than what is kept of them.
        table = all_rows(connection.execute("select range, range::varchar from range(300)"))
    for n in range(3000):
        cache.put(key(n), table)
    assert cache.get(key(2999)) == table
    assert 80_000 < cache.size_bytes <= 100_000
    assert cache.size_bytes == sum(size for _, size in cache._tables.values())


def test_none_are_kept_when_there_is_no_room() -> None:
    cache = ResultCache(0)
    cache.put(key(1), pa.table({"c": [1]}))
    assert cache.get(key(1)) is None


def test_a_key_takes_no_more_room_for_long_questions(planned: Planned) -> None:
    cache = ResultCache(1)
    view = planned.view([at(10, 3)], [at(11, 4)], spill="piece")

    def of(
        sql: str = "select 1", tenant: str = "t", hidden: str | None = None, **parameters: Any
    ) -> bytes:
        seen = View(view.silver, view.border, view.chunks, hidden=hidden)
        return cache.key(seen, None, None, tenant, sql, parameters)

    assert of() == of()
    different = [
        of(),
        of("select 2"),
        of(tenant="tselect", sql=" 1"),
        of(hidden="None"),
        of(p=1),
        of(p=1.0),
        of(p=True),
        of(p="1"),
        of(p="x" * 100_000),
        of(p="1', 'q': '2"),
        of(p="1", q="2"),
    ]
    assert len(set(different)) == len(different)
    assert {len(each) for each in different} == {32}


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_an_answer_takes_the_memory_of_its_rows(planned: Planned) -> None:
    view = planned.view()
    before = private_mb()
    for number in range(30):
        assert asked(planned, view, to=START + HOUR + number) == (2, "miss")
    # DuckDB reserves 8 MB for a column of a million rows.
    assert private_mb() - before < 100


def private_mb() -> int:
    text = Path("/proc/self/status").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("VmData")]
    return int(line.split()[1]) // 1024
