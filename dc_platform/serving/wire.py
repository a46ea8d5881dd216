"""Messages between serving's event loop and a process that answers one after the other."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

# multiprocessing's framing of messages below 2 GiB.
_LENGTH = struct.Struct("!i")


class Wire(asyncio.Protocol):
    """One answer comes for each question, in their order; `lost` is called when the process is gone.
    What was asked then has None for an answer.
    """

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._waiting: deque[asyncio.Future[bytes | None]] = deque()
        # When the process began with the first of them.
        self._begun = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        # uvloop's is one by its methods only.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size < 0:
                # 2 GiB and more have another header.
                self.end()
                return
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                return
            message = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            self._begun = self._loop.time()
            _answered(self._waiting.popleft(), message)

    def connection_lost(self, _error: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        while self._waiting:
            _answered(self._waiting.popleft(), None)
        self._lost()

    @property
    def open(self) -> bool:
        """Whether there is somebody who reads."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def unread(self) -> int:
        """Bytes that the process has not read yet, beside what the system holds."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    @property
    def works(self) -> float:
        """For how many seconds the process has been at one question."""
        return self._loop.time() - self._begun if self._waiting else 0.0

    def is_at(self, future: asyncio.Future[bytes | None]) -> bool:
        """Whether the process is at this question."""
        return bool(self._waiting) and self._waiting[0] is future

    def send(self, message: bytes) -> None:
        """Tell what has no answer. A failure is the end: nobody knows what has gone over."""
        assert self._transport is not None
        try:
            self._transport.writelines((_LENGTH.pack(len(message)), message))
        except BaseException:
            self.end()
            raise

    def ask(self, message: bytes) -> asyncio.Future[bytes | None]:
        """The answer to come."""
        future: asyncio.Future[bytes | None] = self._loop.create_future()
        self.send(message)
        if not self._waiting:
            self._begun = self._loop.time()
        self._waiting.append(future)
        return future

    def end(self) -> None:
        """Break off."""
        if self._transport is not None:
            self._transport.abort()


def _answered(future: asyncio.Future[bytes | None], message: bytes | None) -> None:
    if not future.done():
        future.set_result(message)
