"""The processes that answer light queries (`reader.py`), on serving's event loop.

Each is asked the query that came next without waiting for its last answer. One that ends is started
again; what it was asked, serving answers itself.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from dc_platform.serving.forks import Child
from dc_platform.serving.light import PART, light_memory_mb
from dc_platform.serving.mirror import Change, Packer, Sender
from dc_platform.serving.query import Query
from dc_platform.serving.reader import DONE, HEAD, TIMED_OUT, Asked, work
from dc_platform.serving.recent import TAIL_ROWS
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform.serving.view import View
from dc_platform.serving.wire import Wire
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

# What a process takes beside DuckDB's memory: code, the answers that it keeps, views.
_REST_MB = 768
# Between the starts of two in the place of one, and the longest while they die at once.
_PAUSE_SECONDS, _MOST_SECONDS = 1.0, 60.0
# One that has lived so long did not die of its start.
_LIVED_SECONDS = 30.0
# Beyond the time of a query, which the process heeds.
_GRACE_SECONDS = 5.0
# No query waits behind one that takes longer: serving has a thread for it.
_LONG_SECONDS = 0.1
# One that does not read for so long hangs.
_UNREAD_SECONDS = 5.0
_FIELDS = set(Query.model_fields)


@dataclass(frozen=True)
class Figures:
    """Of a cache."""

    hits: int = 0
    misses: int = 0
    size_bytes: int = 0


class _Reader:
    """One process, and what it was sent; `lost` is called when it has ended."""

    def __init__(self, child: Child, packer: Packer, lost: Callable[[_Reader], None]) -> None:
        self.child = child
        self.wire = Wire(lambda: lost(self))
        self.figures = Figures()
        self._sender = Sender(packer)
        # Queries on their way to it, to those that wait for its answer included.
        self.asked = 0
        self.begun = asyncio.get_running_loop().time()
        self._sending = asyncio.Lock()
        self._unread_since: float | None = None

    async def answer(self, view: View, asked: bytes, seconds: float) -> bytes | None:
        """The JSON; None where serving has to give it. Raises QueryTimeoutError."""
        self.asked += 1
        try:
            while not self._sender.has(view):
                # Whoever waits may be cancelled, and what was begun comes to its end.
                await asyncio.shield(asyncio.ensure_future(self._ship(view)))
                if not self.wire.open:
                    break
            message = await self._told(asked, seconds) if self.wire.open else None
        finally:
            self.asked -= 1
        if message is None:
            return None
        kind, *figures = HEAD.unpack_from(message)
        self.figures = Figures(*figures)
        if kind == TIMED_OUT:
            raise QueryTimeoutError(seconds)
        return message[HEAD.size :] if kind == DONE else None

    async def _told(self, asked: bytes, seconds: float) -> bytes | None:
        now = asyncio.get_running_loop().time
        until = now() + seconds + _GRACE_SECONDS
        future = self.wire.ask(asked)
        while not (await asyncio.wait((future,), timeout=_LONG_SECONDS))[0]:
            if now() > until:
                # The process should have said so.
                self.wire.end()
                raise QueryTimeoutError(seconds)
            if self.wire.works > _LONG_SECONDS and not self.wire.is_at(future):
                future.cancel()
                return None
        return future.result()

    async def show(self, view: View) -> None:
        """Have it copy the newest rows of a view before it is asked; not while it is busy."""
        now = asyncio.get_running_loop().time()
        if not self.wire.unread:
            self._unread_since = None
            if not self._sending.locked():
                await self._ship(view)
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > _UNREAD_SECONDS:
            self.wire.end()

    def has(self, view: View) -> bool:
        """Whether it was sent this view last."""
        return self._sender.has(view)

    async def _ship(self, view: View) -> None:
        async with self._sending:
            if self._sender.has(view) or not self.wire.open:
                return
            change, packed = await anyio.to_thread.run_sync(self._change, view)
            if self.wire.open:
                self.wire.send(packed)
                self._sender.sent(view, change)

    def _change(self, view: View) -> tuple[Change, bytes]:
        change = self._sender.change(view)
        return change, pickle.dumps(change, pickle.HIGHEST_PROTOCOL)


class Readers:
    """`count` processes. For one event loop."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._most_bytes = settings.recent_memory_mb * 2**20 // PART
        self._readers: list[_Reader] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._packer = Packer()
        self._pause = _PAUSE_SECONDS
        self._closed = False

    def start(self) -> None:
        """Start the processes; returns at once."""
        for _ in range(self._count):
            self._keep(self._start(0.0))

    async def answer(self, view: View, query: Query, *, tenant_id: str) -> bytes | None:
        """The answer as JSON; None where serving has to give it. Raises QueryTimeoutError."""
        if query.explain or not self._suits(view):
            return None
        quick = (each for each in self._readers if each.wire.works <= _LONG_SECONDS)
        reader = min(quick, key=lambda each: each.asked, default=None)
        for other in self._readers:
            if other is not reader and not other.has(view):
                self._keep(other.show(view))
        if reader is None:
            return None
        seconds = self._settings.query_timeout_seconds
        try:
            fields = query.model_dump(exclude_unset=True, include=_FIELDS)
            return await reader.answer(view, pickle.dumps(Asked(tenant_id, fields)), seconds)
        except QueryTimeoutError:
            raise
        except Exception as error:
            # No thread, no memory, a query nested too deeply: what serving says to that.
            log.warning("serving answers a query itself after %r", error)
            return None

    def _suits(self, view: View) -> bool:
        """Whether it is worth going over: of now, and with a tail that a reader holds in memory."""
        if view.hidden is not None or view.tail_rows > TAIL_ROWS:
            return False
        if any(chunk.table is None for chunk in view.chunks):
            return False
        return sum(chunk.bytes for chunk in view.chunks) <= self._most_bytes

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
            reader.wire.end()
            await anyio.to_thread.run_sync(reader.child.end)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("light queries: %r", error)

    async def _start(self, pause: float) -> None:
        await asyncio.sleep(pause)
        memory = (light_memory_mb(self._settings) + _REST_MB) * 2**20
        child: Child | None = None
        try:
            child = await anyio.to_thread.run_sync(Child, work, self._settings, memory)
            reader = _Reader(child, self._packer, self._lose)
            ours = socket.fromfd(child.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
            loop = asyncio.get_running_loop()
            await loop.create_unix_connection(lambda: reader.wire, sock=ours)
        except Exception as error:
            log.warning("a process for light queries does not start: %s", error)
            if child is not None:
                self._keep(anyio.to_thread.run_sync(child.end))
            self._again()
            return
        except asyncio.CancelledError:
            if child is not None:
                # It ends with that.
                child.connection.close()
            raise
        # It may have ended already.
        if reader.wire.open:
            self._readers.append(reader)

    def _lose(self, reader: _Reader) -> None:
        if self._closed:
            return
        if reader in self._readers:
            self._readers.remove(reader)
        log.warning("a process for light queries has ended; another one is started")
        if asyncio.get_running_loop().time() - reader.begun > _LIVED_SECONDS:
            self._pause = _PAUSE_SECONDS
        self._keep(anyio.to_thread.run_sync(reader.child.end))
        self._again()

    def _again(self) -> None:
        self._keep(self._start(self._pause))
        self._pause = min(2 * self._pause, _MOST_SECONDS)
