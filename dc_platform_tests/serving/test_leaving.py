"""Readers of SQL's answers who leave, or take nothing: their query ends, and their turn is free."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import httpx
import pytest
from starlette.types import Message

from dc_platform.serving.streams import BrokenOffError, Streamed
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door
from dc_platform_tests.serving.test_sql_pool import HANG, ROWS
from dc_platform_tests.stack.harness import wait_for


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    served = Served(tmp_path_factory.mktemp("served"))
    served.view = view(served.lake, [])
    with Door(served).open() as opened:
        yield opened
    served.engine.close()


def runs(door: Door) -> bool:
    return bool(door.served.engine._workers._running)


def is_free(door: Door) -> bool:
    return not runs(door) and not any(door.app.state.sql_turns._running.values())


def test_before_the_first_row(door: Door) -> None:
    # Whoever waits for the answer gives up after half a second.
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{door.url}/api/v1/sql", headers=door.headers, json={"sql": HANG}, timeout=0.5)
    wait_for(lambda: is_free(door))


def test_among_the_rows(door: Door) -> None:
    asked = {"headers": door.headers, "json": {"sql": ROWS}}
    with httpx.stream("POST", f"{door.url}/api/v1/sql", **asked) as answer:
        assert next(answer.iter_bytes()).startswith(b"[")
        assert runs(door)
    wait_for(lambda: is_free(door))


def test_who_takes_nothing_gives_up_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dc_platform.serving.streams._READ_SECONDS", 0.05)
    done: list[str] = []

    def parts() -> Iterator[bytes]:
        try:
            while True:
                yield b"row"
        finally:
            done.append("query")

    async def receive() -> Message:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    async def answer() -> None:
        rest = parts()
        streamed = Streamed(
            next(rest),
            rest,  # type: ignore[arg-type]
            lambda: None,
            done=lambda: done.append("turn"),
            frames=False,
        )
        await streamed({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)

    with pytest.raises(BrokenOffError, match="nobody has read"):
        anyio.run(answer)
    assert done == ["query", "turn"]
