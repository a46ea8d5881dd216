"""Answers that are streamed: how an error after the first rows is told, and readers that leave.

The status line is out before the last row is known. So an answer that cannot be finished breaks off,
which every HTTP client notices, and one that was asked for in frames (header `X-Framed: true`) says
the reason: each part comes as four bytes of length (big endian) and the bytes, then a length of 0 and
one JSON object, `{}` or `{"status": …, "detail": "…"}`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from itertools import chain
from typing import Any

import anyio
import msgspec
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

log = logging.getLogger(__name__)

Parts = Generator[bytes | HTTPException]
_FRAME = 2**20
_LOOK_SECONDS = 0.1
# Who takes nothing for so long gives up its turn.
_READ_SECONDS = 60.0


class BrokenOffError(Exception):
    """The answer cannot be finished."""


def plain(parts: Iterable[bytes | HTTPException]) -> Iterator[bytes]:
    """The parts; breaks off at an error."""
    for part in parts:
        if isinstance(part, HTTPException):
            raise BrokenOffError(part.detail)
        yield part


def framed(parts: Iterable[bytes | HTTPException]) -> Iterator[bytes]:
    """The parts in frames, and how it ended."""
    end: dict[str, Any] = {}
    try:
        for part in parts:
            if isinstance(part, HTTPException):
                end = {"status": part.status_code, "detail": part.detail}
                break
            for start in range(0, len(part), _FRAME):
                piece = part[start : start + _FRAME]
                yield len(piece).to_bytes(4, "big") + piece
    except Exception:
        log.exception("an answer could not be finished")
        end = {"status": 500, "detail": "serving failed in the middle of the rows; see its log"}
    yield bytes(4) + msgspec.json.encode(end)


async def first_of(
    parts: Parts, interrupt: Callable[[], None], is_gone: Callable[[], Awaitable[bool]]
) -> bytes | HTTPException:
    """The first part, which may be all of the work; ends the query when its reader leaves before."""

    async def watch() -> None:
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            if await is_gone():
                interrupt()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        first = await anyio.to_thread.run_sync(next, parts)
        group.cancel_scope.cancel()
    return first


class Streamed(StreamingResponse):
    """Ends the query when its reader leaves, and frees what it holds before the next request; then it
    calls `done`.
    """

    def __init__(
        self,
        first: bytes,
        rest: Parts,
        interrupt: Callable[[], None],
        *,
        done: Callable[[], None],
        frames: bool,
        **options: Any,
    ) -> None:
        parts = chain([first], rest)
        super().__init__(framed(parts) if frames else plain(parts), **options)
        self._rest = rest
        self._interrupt = interrupt
        self._done = done

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Returns when the reader is gone; the thread that computes rows for him is told."""
        await super().listen_for_disconnect(receive)
        self._interrupt()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; it breaks off when nobody takes it."""

        async def patiently(message: Message) -> None:
            with anyio.move_on_after(_READ_SECONDS) as patience:
                await send(message)
            if patience.cancelled_caught:
                raise BrokenOffError(f"nobody has read for {_READ_SECONDS:g} s")

        try:
            # uvicorn closes the connection of an answer that has begun and raises.
            await super().__call__(scope, receive, patiently)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._rest.close)
            self._done()
