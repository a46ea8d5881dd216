"""Processes for light queries: their answers are those of the engine, whatever happens to them."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pyarrow as pa
import pytest
import uvloop
from fastapi.testclient import TestClient

from dc_platform.registry.database import opened
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.serving.answers import answer
from dc_platform.serving.app import create_app
from dc_platform.serving.query import Query
from dc_platform.serving.readers import Readers
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.view import View
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.serving.conftest import lines

COUNT = {"aggregations": [{"function": "COUNT"}]}
LIGHT: list[dict[str, Any]] = [
    COUNT,
    {"aggregations": [{"function": "COUNT", "groupBy": ["sourceId", "eventType"]}], "limit": 2},
    {"filters": [{"field": "eventType", "operator": "in", "value": ["t", 1.0]}], **COUNT},
    {"from": NOW, "to": NOW + 3_000, **COUNT},
    {"aggregations": [{"function": "UNIQUE", "field": "eventId", "as": "half \u00e9"}]},
    {"aggregations": [{"function": "TOPK", "field": "eventType", "k": 3}]},
    {"aggregations": [{"function": "MAX", "field": "timestamp", "groupBy": ["timestamp:1m"]}]},
]
HEAVY: list[dict[str, Any]] = [
    {},
    {"aggregations": [{"function": "SUM", "field": "n"}]},
    {**COUNT, "explain": True},
    # Errors come from one place.
    {"filters": [{"field": "eventType", "operator": "contains", "value": 7}], **COUNT},
    {"cursor": "nonsense"},
]


@asynccontextmanager
async def running(served: Served, count: int = 2) -> AsyncIterator[Readers]:
    readers = Readers(served.settings, count)
    readers.start()
    try:
        await until(lambda: len(readers._readers) == count)
        yield readers
    finally:
        await readers.close()


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def ask(readers: Readers, seen: View, body: dict[str, Any] = COUNT) -> Any:
    found = await readers.answer(seen, Query.model_validate(body), tenant_id="default")
    return None if found is None else plain(json.loads(found))


async def ready(readers: Readers, seen: View) -> None:
    """Wait until all of them answer of a view."""
    for reader in readers._readers:
        others = [each for each in readers._readers if each is not reader]
        for other in others:
            readers._readers.remove(other)
        async with asyncio.timeout(30):
            while await ask(readers, seen) is None:
                await asyncio.sleep(0.05)
        readers._readers.extend(others)


def play(
    served: Served, scenario: Callable[[Readers, View], Awaitable[None]], *, count: int = 2
) -> None:
    """Run a scenario with readers that answer of the served view."""
    seen = served.view
    assert seen is not None

    async def played() -> None:
        async with running(served, count) as readers:
            await ready(readers, seen)
            await scenario(readers, seen)

    uvloop.run(played())


def plain(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "executionTime"}


def pids(readers: Readers) -> list[int]:
    found = [each.child.pid for each in readers._readers]
    return [pid for pid in found if pid is not None]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    served = Served(tmp_path, query_timeout_seconds=20)
    served.view = view(
        served.lake,
        [block(lines(0, 3)), block(lines(50, 51), 1, tenant="other")],
        [[block(lines(3, 5), 2)]],
    )
    return served


def test_answers_are_the_engines(served: Served) -> None:
    async def scenario(readers: Readers, seen: View) -> None:
        for body in LIGHT:
            own = answer(served.engine, seen, Query.model_validate(body), tenant_id="default")
            expected = plain(json.loads(json.dumps(own)))
            for _ in range(2):
                assert await ask(readers, seen, body) == expected, body
        for body in HEAVY:
            assert await ask(readers, seen, body) is None, body
        assert readers.figures.hits > 0
        assert readers.figures.size_bytes > 0
        mine = Query.model_validate(COUNT)
        others = await readers.answer(seen, mine, tenant_id="other")
        assert others is not None
        assert json.loads(others)["totalCount"] == 1

    play(served, scenario)


def test_each_query_is_answered_from_its_view(served: Served) -> None:
    """16 who ask while events come and land: each sees the view that was there when it asked."""
    seen: list[tuple[View, int]] = []
    first = served.view
    assert first is not None
    seen.append((first, 5))
    for number in range(1, 9):
        start = number * 10
        chunk = view(served.lake, [], [[block(lines(start, start + 2), 10 + number)]]).chunks
        before, count = seen[-1]
        if number % 3:
            seen.append((replace(before, chunks=(*before.chunks, *chunk)), count + 2))
        else:
            landed = view(served.lake, [block(lines(start, start + 2), 1 + number // 3)])
            seen.append((replace(before, silver=landed.silver), count + 2))
    now = 0

    async def one(readers: Readers, found: list[bool]) -> None:
        for _ in range(40):
            asked_of, count = seen[now]
            content = await ask(readers, asked_of)
            if content is not None:
                assert content["totalCount"] == count
            found.append(content is not None)
            await asyncio.sleep(0.005)

    async def scenario() -> None:
        nonlocal now
        async with running(served) as readers:
            await ready(readers, first)
            found: list[bool] = []
            asking = asyncio.gather(*(one(readers, found) for _ in range(16)))
            while now < len(seen) - 1:
                await asyncio.sleep(0.1)
                now += 1
            await asking
            await ready(readers, seen[-1][0])
            assert any(found)

    uvloop.run(scenario())


def test_one_that_is_killed_is_replaced(served: Served) -> None:
    async def scenario(readers: Readers, seen: View) -> None:
        first = pids(readers)
        # It is asked, and does not answer before its end.
        for pid in first:
            os.kill(pid, signal.SIGSTOP)
        asked = [asyncio.ensure_future(ask(readers, seen)) for _ in range(4)]
        await until(lambda: [r.asked for r in readers._readers] == [2, 2])
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        # Serving answers these itself.
        assert await asyncio.gather(*asked) == [None] * 4
        await until(lambda: len(readers._readers) == 2)
        await ready(readers, seen)
        assert not set(first) & set(pids(readers))
        await until(lambda: not any(map(psutil.pid_exists, first)))

    play(served, scenario)


def test_one_that_hangs_is_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(readers: Readers, seen: View) -> None:
        [pid] = pids(readers)
        os.kill(pid, signal.SIGSTOP)
        monkeypatch.setattr("dc_platform.serving.readers._GRACE_SECONDS", -19.0)
        with pytest.raises(QueryTimeoutError):
            await ask(readers, seen)
        monkeypatch.undo()
        await until(lambda: not psutil.pid_exists(pid))
        await until(lambda: len(readers._readers) == 1)
        await ready(readers, seen)

    play(served, scenario, count=1)


def test_one_that_does_not_read_is_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dc_platform.serving.readers._UNREAD_SECONDS", 0.2)

    async def scenario(readers: Readers, seen: View) -> None:
        hangs = readers._readers[0]
        pid = hangs.child.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        # It is shown views and never asked.
        hangs.asked = 1000
        most = 0
        async with asyncio.timeout(30):
            while hangs in readers._readers:
                table = pa.concat_tables([seen.tail] * 500)
                chunk = replace(seen.chunks[0], table=table, rows=len(table))
                assert await ask(readers, replace(seen, chunks=(chunk,))) is not None
                most = max(most, hangs.wire.unread)
                await asyncio.sleep(0.02)
        assert most < 3 * len(pickle.dumps(table))
        await until(lambda: not psutil.pid_exists(pid) and len(readers._readers) == 2)

    play(served, scenario)


def test_after_a_message_that_did_not_go_out_nobody_gets_anothers_answer(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(readers: Readers, seen: View) -> None:
        later = replace(seen, complete=False, up_to_ms=7)
        for failing in (seen, later):
            [reader] = readers._readers
            transport = reader.wire._transport
            assert transport is not None

            def no_memory(_parts: Any) -> None:
                raise MemoryError

            with monkeypatch.context() as patch:
                patch.setattr(
                    reader.wire,
                    "_transport",
                    SimpleNamespace(
                        writelines=no_memory,
                        abort=transport.abort,
                        is_closing=transport.is_closing,
                        get_write_buffer_size=lambda: 0,
                    ),
                )
                assert await ask(readers, failing) is None
            await until(lambda gone=reader: readers._readers not in ([], [gone]))
            await ready(readers, seen)
            found = await ask(readers, later)
            assert (found["totalCount"], found["complete"]) == (5, False)

    play(served, scenario, count=1)


def test_who_comes_while_a_view_goes_over_is_spread(served: Served) -> None:
    async def scenario(readers: Readers, seen: View) -> None:
        asked = [asyncio.ensure_future(ask(readers, replace(seen))) for _ in range(8)]
        await asyncio.sleep(0)
        assert [reader.asked for reader in readers._readers] == [4, 4]
        assert None not in await asyncio.gather(*asked)

    play(served, scenario)


def test_nobody_stands_behind_a_long_query(served: Served) -> None:
    async def scenario(readers: Readers, seen: View) -> None:
        [pid] = pids(readers)
        os.kill(pid, signal.SIGSTOP)
        first, behind = (asyncio.ensure_future(ask(readers, seen)) for _ in range(2))
        assert await behind is None
        assert await ask(readers, seen) is None
        assert not first.done()
        os.kill(pid, signal.SIGCONT)
        assert await first is not None
        assert await ask(readers, seen) is not None

    play(served, scenario, count=1)


def test_a_query_that_takes_too_long_there_does_not_begin_again(tmp_path: Path) -> None:
    hasty = Served(tmp_path, query_timeout_seconds=1e-6)
    seen = view(hasty.lake, [block(lines(0, 3))])

    async def scenario() -> None:
        async with running(hasty, count=1) as readers:
            with pytest.raises(QueryTimeoutError):
                await ask(readers, seen)

    uvloop.run(scenario())


def test_a_process_that_does_not_start_is_tried_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dc_platform.serving.readers._PAUSE_SECONDS", 0.05)
    tried = 0

    class Failing:
        def __init__(self, *_: Any) -> None:
            nonlocal tried
            tried += 1
            raise RuntimeError("can't start new thread")

    async def scenario(seen: View) -> None:
        readers = Readers(served.settings, 1)
        with monkeypatch.context() as patch:
            patch.setattr("dc_platform.serving.readers.Child", Failing)
            readers.start()
            await until(lambda: tried == 3)
            # Each pause is twice as long.
            assert readers._pause >= 0.2
        await until(lambda: len(readers._readers) == 1)
        await ready(readers, seen)
        await readers.close()

    assert served.view is not None
    uvloop.run(scenario(served.view))


def test_what_cannot_go_over_serving_answers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(readers: Readers, seen: View) -> None:
        deep: Any = 1
        for _ in range(600):
            deep = [deep]
        conditions = [{"field": "eventType", "operator": "=", "value": deep}]
        assert await ask(readers, seen, {"filters": conditions, **COUNT}) is None
        with monkeypatch.context() as patch:
            failing = SimpleNamespace(change=lambda _: 1 / 0, has=lambda _: False)
            patch.setattr(readers._readers[0], "_sender", failing)
            assert await ask(readers, seen) is None
        # More bytes than it may hold.
        heavy = replace(seen.chunks[0], bytes=2**25 + 1)
        assert await ask(readers, replace(seen, chunks=(heavy,))) is None
        assert await ask(readers, seen) is not None

    play(served, scenario, count=1)


def test_views_that_no_reader_has_in_memory(served: Served) -> None:
    seen = served.view
    assert seen is not None
    spilled = view(served.lake, [], [[block(lines(7, 9), 5)]], spill=served.tail_directory).chunks

    async def scenario() -> None:
        async with running(served, count=1) as readers:
            await ready(readers, seen)
            assert await ask(readers, replace(seen, hidden="event_id = 'x'")) is None
            assert await ask(readers, replace(seen, chunks=(*seen.chunks, *spilled))) is None
            assert await ask(readers, seen) is not None

    uvloop.run(scenario())


def test_without_any_process_serving_answers(served: Served) -> None:
    async def scenario(seen: View) -> None:
        readers = Readers(served.settings, 2)
        assert await ask(readers, seen) is None
        await readers.close()

    assert served.view is not None
    uvloop.run(scenario(served.view))


def test_over_http(tmp_path: Path) -> None:
    served = Served(tmp_path, kafka_bootstrap="127.0.0.1:1")
    view(served.lake, [block(lines(0, 3))])
    with opened(served.settings.registry) as database:
        token = Tokens(database).create(Scope.QUERY)
    with TestClient(create_app(served.settings)) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        app: Any = client.app
        before = time.monotonic()
        while not app.state.readers.figures.misses:
            assert time.monotonic() < before + 60
            found = client.post("/api/v1/query", json=COUNT)
            assert found.status_code == 503 or found.json()["totalCount"] == 3, found.text
            time.sleep(0.05)
        children = pids(app.state.readers)
        wrong = client.post("/api/v1/query", json={"cursor": "nonsense"})
        assert (wrong.status_code, "nextCursor" in wrong.text) == (422, True)
    assert children
    assert not any(map(psutil.pid_exists, children))
