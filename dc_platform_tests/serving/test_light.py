"""Light queries: one thread, and only where all of their rows are in memory, or few in gold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.lake.table import Snapshot
from dc_platform.serving.light import HeavyQueryError, Light
from dc_platform.serving.recent import Held
from dc_platform.serving.view import Few
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.serving import SPILLING, Served, view
from dc_platform_tests.serving.conftest import lines
from dc_platform_tests.stack.harness import wait_for

PLAIN = "count(*)"
# What reads a payload.
OF_PAYLOAD = "count(payload)"


@pytest.fixture
def served(tmp_path: Path) -> Served:
    """Three events in silver and two in the tail."""
    served = Served(tmp_path, query_memory_mb=64)
    served.view = view(served.lake, [block(lines(0, 3))], [[block(lines(3, 5), 1)]])
    return served


@pytest.fixture
def light(served: Served) -> Iterator[Light]:
    """It has them in memory."""
    made = Light(served.settings, served.lake)
    seen = served.view
    assert seen is not None

    def all_in_memory() -> bool:
        with made.cursors.recent.of(seen) as held:
            return held.tail and seen.paths <= set(held.paths)

    wait_for(all_in_memory)
    assert asked(made, served) == 5
    yield made
    made.close()


def asked(
    light: Light,
    served: Served,
    what: str = PLAIN,
    span: tuple[int | None, int | None] = (None, None),
) -> int | None:
    """What it counts; None where the query is not light."""
    assert served.view is not None
    try:
        table = light.run_on_events(
            f"select current_setting('threads')::integer as threads, {what} as n from events",
            served.view,
            tenant_id="default",
            parameters={},
            from_us=span[0],
            to_us=span[1],
        )
    except HeavyQueryError:
        return None
    assert table["threads"].to_pylist() == [1]
    found: int = table["n"][0].as_py()
    return found


def test_what_reads_payloads_is_not_light(light: Light, served: Served) -> None:
    assert asked(light, served, OF_PAYLOAD) is None
    assert served.view is not None
    # What was deleted since may be told by the payload.
    hidden = "event_id = 'none' or payload like '%none%'"
    served.view = replace(served.view, hidden=hidden)
    assert asked(light, served) is None


def test_only_rows_of_the_range_need_be_in_memory(light: Light, served: Served) -> None:
    light.cursors.recent.close()
    before = served.view
    assert before is not None
    near = (None, (NOW + 50_000) * 1000)
    # Files that it does not get: a few are those that have just landed.
    for number in range(1, 6):
        start = number * 100
        later = view(served.lake, [block(lines(start, start + 3), number)])
        served.view = replace(before, silver=later.silver)
        assert asked(light, served) == (5 + 3 * number if number <= 4 else None)
        assert asked(light, served, span=near) == 5


def test_many_rows_that_have_just_landed_are_not_light(
    light: Light, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    light.cursors.recent.close()
    served.view = view(served.lake, [block(lines(100, 103), 1)])
    monkeypatch.setattr("dc_platform.serving.light._NEW", Few(files=4, rows=3))
    assert asked(light, served) == 6
    monkeypatch.setattr("dc_platform.serving.light._NEW", Few(files=4, rows=2))
    assert asked(light, served) is None


def test_chunks_that_have_just_come_are_in_memory_as_they_are(light: Light, served: Served) -> None:
    light.cursors.recent.close()
    before = served.view
    assert before is not None
    later = view(served.lake, [], [[block(lines(200, 202), 9)]])
    served.view = replace(before, chunks=(*before.chunks, *later.chunks))
    assert asked(light, served) == 7


def test_a_spilled_tail_is_not_in_memory(light: Light, served: Served) -> None:
    chunks = [[block(lines(3, 5), 1)]]
    served.view = view(served.lake, [], chunks, spill=served.tail_directory)
    assert asked(light, served) is None
    assert asked(light, served, span=(None, (NOW + 3_000) * 1000)) == 3


def test_what_would_have_to_spill_has_an_error(light: Light, served: Served) -> None:
    with pytest.raises(duckdb.OutOfMemoryException):
        asked(light, served, f"max(({SPILLING}))")
    assert asked(light, served) == 5


def test_few_rows_of_gold_are_light(light: Light, served: Served) -> None:
    assert served.view is not None
    threads = "select current_setting('threads')::integer as n"

    def sql(_held: Held) -> str:
        return threads

    def run(gold_rows: int | None, hourly: Snapshot | None = None) -> list[int]:
        assert served.view is not None
        found = light.run_planned(sql, served.view, {}, hourly=hourly, gold_rows=gold_rows)
        numbers: list[int] = found["n"].to_pylist()
        return numbers

    assert run(200_000) == [1]
    assert light.coverage(EVENTS_HOURLY).of(served.view.silver) is None
    # Many rows, or others too, or those that are in memory elsewhere.
    for gold_rows, hourly in ((200_001, None), (None, None), (1, served.view.silver)):
        with pytest.raises(HeavyQueryError):
            run(gold_rows, hourly)


def test_people_cannot_open_it(light: Light) -> None:
    with pytest.raises(duckdb.Error):
        light.cursors.recent.instance.execute("set enable_external_access = true")
