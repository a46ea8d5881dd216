"""The processes that answer light queries (`reader.py`), on serving's event loop.

Each is asked the query that came next without waiting for its last answer. One that ends is started
again; what it was asked, serving answers itself.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import cast

import anyio.to_thread

from dc_platform.errors import RetriableError
from dc_platform.serving.forks import Child
from dc_platform.serving.light import light_memory_mb
from dc_platform.serving.mirror import Sender
from dc_platform.serving.query import Query
from dc_platform.serving.reader import DONE, HEAD, Asked, work
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.view import View
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

# What a process takes beside DuckDB's memory: code, the answers that it keeps, a view.
_REST_MB = 768
_AGAIN_SECONDS = 1.0
# Beyond the time of a query, which the process heeds.
_GRACE_SECONDS = 5.0
# A longer tail is in no reader's memory (`recent.py`).
_MOST_TAIL_ROWS = 100_000
# multiprocessing's framing of messages below 2 GiB.
_LENGTH = struct.Struct("!i")


@dataclass(frozen=True)
class Figures:
    """Of a cache."""

    hits: int = 0
    misses: int = 0
    size_bytes: int = 0


class _Wire(asyncio.Protocol):
    """Messages over a socket: one answer for each query, in their order."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._buffer = bytearray()
        self.waiting: deque[asyncio.Future[bytes | None]] = deque()
        self.transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one by its methods only.
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            _settle(self.waiting.popleft(), message)

    def connection_lost(self, _error: Exception | None) -> None:
        self.transport = None
        while self.waiting:
            _settle(self.waiting.popleft(), None)
        self._lost()

    def send(self, message: bytes) -> None:
        assert self.transport is not None
        self.transport.writelines((_LENGTH.pack(len(message)), message))


def _settle(future: asyncio.Future[bytes | None], message: bytes | None) -> None:
    if not future.done():
        future.set_result(message)


class _Reader:
    """One process, and what it was sent; `lost` is called when it has ended."""

    def __init__(self, child: Child, lost: Callable[[_Reader], None]) -> None:
        self.child = child
        self.wire = _Wire(lambda: lost(self))
        self.figures = Figures()
        self._sender = Sender()
        # A view goes before the queries that are over it.
        self._sending = asyncio.Lock()

    async def answer(self, view: View, asked: bytes) -> bytes | None:
        """The JSON; None where it is not light, or the process has ended."""
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        async with self._sending:
            await self._show(view)
            if self.wire.transport is None:
                return None
            self.wire.waiting.append(future)
            self.wire.send(asked)
        message = await future
        if message is None:
            return None
        kind, *figures = HEAD.unpack_from(message)
        self.figures = Figures(*figures)
        return message[HEAD.size :] if kind == DONE else None

    async def show(self, view: View) -> None:
        """Have it copy the newest rows of a view before it is asked."""
        if not self._sending.locked():
            async with self._sending:
                await self._show(view)

    async def _show(self, view: View) -> None:
        if self._sender.has(view):
            return
        try:
            change = await anyio.to_thread.run_sync(self._change, view)
        except BaseException:
            # It would answer from an older view than the sender thinks.
            self.end()
            raise
        if self.wire.transport is not None:
            self.wire.send(change)

    def end(self) -> None:
        """Let it end; what it was asked has no answer."""
        if self.wire.transport is not None:
            self.wire.transport.abort()

    def has(self, view: View) -> bool:
        """Whether it was sent this view."""
        return self._sender.has(view)

    def _change(self, view: View) -> bytes:
        return pickle.dumps(self._sender.change(view), pickle.HIGHEST_PROTOCOL)


class Readers:
    """`count` processes. For one event loop."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._readers: list[_Reader] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def start(self) -> None:
        """Start the processes; returns at once."""
        for _ in range(self._count):
            self._begin(0.0)

    async def answer(self, view: View, query: Query, *, tenant_id: str) -> bytes | None:
        """The answer as JSON; None where the query is not light. Raises QueryTimeoutError."""
        suited = view.hidden is None and view.tail_rows <= _MOST_TAIL_ROWS
        if query.explain or not suited or any(chunk.table is None for chunk in view.chunks):
            return None
        reader = min(self._readers, key=lambda each: len(each.wire.waiting), default=None)
        if reader is None:
            return None
        for other in self._readers:
            if other is not reader and not other.has(view):
                self._keep(other.show(view))
        asked = Asked(tenant_id, query.model_dump(exclude_unset=True, include=_FIELDS))
        seconds = self._settings.query_timeout_seconds
        try:
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                return await reader.answer(view, pickle.dumps(asked))
        except TimeoutError as error:
            reader.end()
            raise QueryTimeoutError(seconds) from error

    @property
    def figures(self) -> Figures:
        """Of the caches of all."""
        found = [reader.figures for reader in self._readers]
        return Figures(
            sum(f.hits for f in found),
            sum(f.misses for f in found),
            sum(f.size_bytes for f in found),
        )

    async def close(self) -> None:
        """End the processes."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        readers, self._readers = self._readers, []
        for reader in readers:
            reader.end()
            await anyio.to_thread.run_sync(reader.child.end)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, seconds: float) -> None:
        self._keep(self._start(seconds))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        memory = (light_memory_mb(self._settings) + _REST_MB) * 2**20
        try:
            child = await anyio.to_thread.run_sync(Child, work, self._settings, memory)
            reader = _Reader(child, self._lose)
            ours = socket.fromfd(child.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: reader.wire, sock=ours)
        except (RetriableError, OSError) as error:
            log.warning("light queries: %s", error)
            self._begin(_AGAIN_SECONDS)
            return
        # It may have ended already.
        if reader.wire.transport is not None:
            self._readers.append(reader)

    def _lose(self, reader: _Reader) -> None:
        if self._closed:
            return
        if reader in self._readers:
            self._readers.remove(reader)
        log.warning("a process for light queries has ended; another one is started")
        self._keep(anyio.to_thread.run_sync(reader.child.end))
        self._begin(_AGAIN_SECONDS)


_FIELDS = set(Query.model_fields)
