"""The processes that run SQL of people: a warm one for each query, and SIGKILL for what does not end.

One is forked in advance (`forks.py`). A tenant's are used again by this tenant only, so what a query
might have made of its process reaches nobody else.
"""

from __future__ import annotations

import logging
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import duckdb
import msgspec

from dc_platform.errors import PlatformError, RetriableError
from dc_platform.serving.forks import Child
from dc_platform.serving.instance import Bounds, remove_spilled, spill_name
from dc_platform.serving.rows import Deadlines, QueryTimeoutError
from dc_platform.serving.sql_worker import END, FRAME, KINDS, PART, Asked, Failure, work

log = logging.getLogger(__name__)

# Processes that wait for their tenant's next query.
_IDLE = 4
# What a process takes beside DuckDB's memory: code, strings and lists of functions, a batch as text.
_REST_MB = 512
# After these the process is not used again.
_SPOILING = (
    duckdb.OutOfMemoryException,
    duckdb.InternalException,
    duckdb.FatalException,
    MemoryError,
)


class QueryDiedError(PlatformError):
    """The process that ran a query ended in the middle of it."""


class Worker:
    """One process, and the connection to it; `tenant_id` is whose queries it has run."""

    def __init__(self, bounds: Bounds) -> None:
        self.tenant_id: str | None = None
        self._temporary = bounds.temporary
        self.process = Child(work, bounds, (bounds.memory_mb + _REST_MB) * 2**20)
        self.connection = self.process.connection

    @property
    def waits(self) -> bool:
        """Whether it waits for a query: it says nothing and has not ended."""
        return not self.connection.poll()

    def end(self) -> None:
        """End it, and remove what it has left."""
        self.process.end()
        shutil.rmtree(self._temporary, ignore_errors=True)


class Running:
    """A query in a process. It has so long for each part as the deadlines say."""

    def __init__(self, worker: Worker, deadlines: Deadlines) -> None:
        self._worker = worker
        self._deadlines = deadlines
        self._lock = threading.Lock()
        self._expired = self._killed = self._over = False
        # Whether the process can run another query.
        self.reusable = False

    def interrupt(self) -> None:
        """Nobody waits for it any more; from any thread, and of no effect after its end."""
        with self._lock:
            # The process may run somebody else's.
            if not self._over:
                self._killed = True
                self._worker.process.kill()

    def expire(self) -> None:
        """Its time is over."""
        self._expired = True
        self.interrupt()

    def parts(self, asked: Asked) -> Iterator[bytes]:
        """The answer. Raises what the process tells, QueryTimeoutError, or QueryDiedError."""
        with self._clock():
            self._worker.connection.send(asked)
        while True:
            with self._clock():
                frame = self._worker.connection.recv_bytes(len(PART) + FRAME)
            kind, content = frame[:1], frame[1:]
            if kind == PART:
                yield content
            elif kind == END:
                self._end(reusable=True)
                return
            else:
                error = _error(content)
                self._end(reusable=not isinstance(error, _SPOILING))
                raise error

    def _end(self, *, reusable: bool) -> None:
        with self._lock:
            self._over = True
            self.reusable = reusable and not self._killed

    @contextmanager
    def _clock(self) -> Iterator[None]:
        """The process works within the block."""
        self._deadlines.begin(self)
        try:
            yield
        except (EOFError, OSError) as error:
            if self._expired:
                raise QueryTimeoutError(self._deadlines.seconds) from error
            raise QueryDiedError(_death(self._worker.process.exit_code())) from error
        finally:
            self._deadlines.end(self)


class Workers:
    """All processes of an engine. Thread-safe. How many run at once is for whoever gives turns."""

    def __init__(self, bounds: Bounds, *, seconds: float) -> None:
        self._bounds = bounds
        self._deadlines = Deadlines(seconds)
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._running: set[Worker] = set()
        self._spare: Worker | None = None
        # A pool: its thread ends with this.
        self._starter = ThreadPoolExecutor(1, "sql-workers")

    def start(self) -> None:
        """Remove what an earlier process has left, and have one ready; returns at once."""
        remove_spilled(self._bounds.temporary)
        self._starter.submit(self._prepare)

    @contextmanager
    def running(self, tenant_id: str) -> Iterator[Running]:
        """A process for one query of a tenant."""
        worker = self._take(tenant_id)
        running = Running(worker, self._deadlines)
        try:
            yield running
        finally:
            self._give_back(worker, again=running.reusable)

    def close(self) -> None:
        """End all of them."""
        self._starter.shutdown(cancel_futures=True)
        with self._lock:
            waiting = [*self._idle, *([self._spare] if self._spare else [])]
            self._idle, self._spare = [], None
            for worker in self._running:
                worker.process.kill()
        for worker in waiting:
            worker.end()

    def _take(self, tenant_id: str) -> Worker:
        while (worker := self._warm(tenant_id)) is not None and not worker.waits:
            # Somebody has ended it meanwhile.
            worker.end()
        if worker is None:
            worker = self._new()
        if worker.tenant_id is None:
            worker.tenant_id = tenant_id
            self._starter.submit(self._prepare)
        with self._lock:
            self._running.add(worker)
        return worker

    def _warm(self, tenant_id: str) -> Worker | None:
        with self._lock:
            for worker in reversed(self._idle):
                if worker.tenant_id == tenant_id:
                    self._idle.remove(worker)
                    return worker
            spare, self._spare = self._spare, None
            return spare

    def _give_back(self, worker: Worker, *, again: bool) -> None:
        with self._lock:
            self._running.discard(worker)
            ended = [] if again else [worker]
            if again:
                self._idle.append(worker)
                ended = self._idle[:-_IDLE]
                del self._idle[:-_IDLE]
        for old in ended:
            old.end()

    def _prepare(self) -> None:
        if self._spare is None:
            try:
                worker = self._new()
            except RetriableError as error:
                log.warning("%s", error)
                return
            with self._lock:
                self._spare = worker

    def _new(self) -> Worker:
        name = spill_name("sql")
        return Worker(replace(self._bounds, temporary=self._bounds.temporary / name))


def _error(content: bytes) -> Exception:
    failure = msgspec.json.decode(content, type=Failure)
    # Without a kind it is a mistake of ours.
    return KINDS.get(failure.kind, RuntimeError)(failure.text)


def _death(code: int | None) -> str:
    by = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return (
        f"The query ended the process that ran it ({by}). Nothing else is disturbed; ask otherwise."
    )
