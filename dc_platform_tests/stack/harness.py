"""Drives a stack of stand-ins, and looks for what a stack leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from dc_platform.stack import control, ports
from dc_platform.stack.processes import STACK_VARIABLE
from dc_platform.stack.record import StackDirectory
from dc_platform_tests.stack import stand_in


class StandInStack:
    """A stack of stand-ins in `directory`, with a supervisor process."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = StackDirectory(directory)
        self.ports = free_ports(len(stand_in.NAMES))
        self.supervisor: subprocess.Popen[bytes] | None = None

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        """Start a supervisor."""
        command = [sys.executable, "-P", stand_in.__file__, "supervise", str(self.path)]
        self.supervisor = subprocess.Popen(
            [*command, *map(str, self.ports)],
            stdout=subprocess.DEVNULL,
            stderr=(self.path / "supervisor.err").open("ab"),
            **options,
        )
        return self.supervisor

    def started(self, **options: Any) -> dict[str, int]:
        """Start a supervisor and wait for all parts; gives their process ids."""
        supervisor = self.start(**options)
        wait_for(lambda: self.content().get("pids", {}).get("supervisor") == supervisor.pid)
        wait_for(lambda: self.content()["ready"])
        return dict(self.content()["pids"])

    @property
    def path(self) -> Path:
        """The data directory."""
        return self.directory.path

    def content(self) -> dict[str, Any]:
        """stack.json as others read it; {} while there is none."""
        try:
            content: dict[str, Any] = json.loads(self.directory.stack_file.read_text())
        except FileNotFoundError:
            return {}
        return content

    def ended(self) -> list[str]:
        """Who ended orderly, in that order."""
        file = self.path / "ended"
        return file.read_text().split() if file.exists() else []

    def worker(self) -> int:
        """The process id of door's latest worker."""
        file = self.path / "worker.pid"
        wait_for(file.exists)
        return int(file.read_text())

    def kill_supervisor(self) -> None:
        """SIGKILL it; nobody tells the parts."""
        assert self.supervisor is not None
        self.supervisor.kill()
        self.supervisor.wait()

    def down(self) -> bool:
        """What `dcp down` does."""
        return control.stop(self.directory, lambda text: None)


@contextlib.contextmanager
def stand_in_stack(directory: Path) -> Iterator[StandInStack]:
    """A stack that is gone at the end, whatever the test did."""
    stack = StandInStack(directory)
    try:
        yield stack
    finally:
        if stack.supervisor is not None and stack.supervisor.poll() is None:
            stack.supervisor.kill()
            stack.supervisor.wait()
        end_all(stack.directory)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def processes_of(directory: StackDirectory) -> list[psutil.Process]:
    """Everything that carries the stack's id, whatever group it is in."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(STACK_VARIABLE) == directory.stack_id and alive(process.pid):
                found.append(process)
    return found


def end_all(directory: StackDirectory) -> None:
    """SIGKILL what a test left behind."""
    while found := processes_of(directory):
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    """Ports that nobody else gets while the tests run."""
    return list(ports.choose(needed=(), remembered={}, auto=True).values())[:count]


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until it holds; fails after a generous time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
