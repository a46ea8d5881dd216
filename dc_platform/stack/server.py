"""A server program on this machine, apart from any stack: for tests, benches and tools.

In a stack the supervisor starts the same command; here its life is the caller's affair.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from dc_platform.errors import FatalError
from dc_platform.stack.processes import Process, send, spawn


def write_properties(path: Path, text: str) -> None:
    """Write a file of Java properties, in the encoding that Java reads them in on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    units = text.encode("utf-16-be", "surrogatepass")
    codes = (int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2))
    path.write_text("".join(chr(c) if c < 128 else f"\\u{c:04x}" for c in codes))


class LocalServer(ABC):
    """As a context manager: started, ready, and stopped at the end."""

    name: str

    def __init__(self, directory: Path, log: Path | None) -> None:
        self.directory = directory.absolute()
        self.log = log or self.directory / f"{self.name}.log"
        self._process: Process | None = None

    @abstractmethod
    def prepare(self) -> list[str]:
        """Fetch and configure what is missing; gives the command that runs the server."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does its work."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.lives() else None

    def start(self) -> None:
        """Start it, unless it runs; `wait_ready` waits until it answers."""
        if self.pid is None:
            command = self.prepare()
            self._process = spawn(
                command, log=self.log, environment=os.environ, directory=self.directory
            )

    def wait_ready(self, seconds: float = 120.0) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + seconds
        while not self.answers():
            if self.pid is None:
                raise FatalError(f"{self.name} ended while it started: see {self.log}")
            if time.monotonic() > deadline:
                raise FatalError(f"{self.name} is not ready after {seconds:.0f} s: see {self.log}")
            time.sleep(0.2)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._end(signal.SIGKILL, 30.0)

    def stop(self, seconds: float = 30.0) -> None:
        """End it orderly; after `seconds` it is killed."""
        self._end(signal.SIGTERM, seconds)

    def _end(self, number: signal.Signals, seconds: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        send(process.identity, number)
        deadline = time.monotonic() + seconds
        while process.lives():
            if time.monotonic() > deadline:
                send(process.identity, signal.SIGKILL)
            time.sleep(0.05)

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
