"""Processes of a stack: started in sessions of their own, known by process id and start time.

A part and everything that it starts share one process group and carry the stack's id in their
environment. Nothing is ever ended by name: only a recorded process, or one that is in the group of
a part *and* carries the id.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from dc_platform.priority import step_back_session

STACK_VARIABLE = "DCP_STACK_ID"
PART_VARIABLE = "DCP_STACK_PART"
LOG_LIMIT_BYTES = 16 * 2**20
# The kernel's boot time, which start times are counted from, is rounded to seconds.
_START_TOLERANCE = 1.5


class Identity(NamedTuple):
    """A process for good: a process id alone is given again after its end.

    `started` is in seconds, on Linux since the boot: the time since the epoch moves when the clock
    is set, and then every part would look like a stranger.
    """

    pid: int
    started: float


class Usage(NamedTuple):
    """What a process takes now: bytes of memory, share of one processor."""

    memory: int
    cpu: float


class Process:
    """A process that was started here, or adopted from a supervisor that died."""

    def __init__(self, identity: Identity, child: subprocess.Popen[bytes] | None = None) -> None:
        self.identity = identity
        self.exit_code: int | None = None
        self._child = child
        self._handle: psutil.Process | None = None

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group and its session."""
        return self.identity.pid

    def lives(self) -> bool:
        """Whether it runs; a child that ended is reaped by this."""
        if self._child is not None:
            self.exit_code = self._child.poll()
            return self.exit_code is None
        return lives(self.identity)

    def usage(self) -> Usage | None:
        """Memory, and the processor's share since the last call; None when it is gone."""
        try:
            if self._handle is None:
                self._handle = psutil.Process(self.pid)
            return Usage(self._handle.memory_info().rss, self._handle.cpu_percent() / 100)
        except psutil.Error:
            return None


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    directory: Path,
    nice: int = 0,
) -> Process:
    """Start a program in a session of its own, of this niceness; what it prints is appended to `log`.

    It gets no file descriptor but its log, so nobody who waits for ours waits for its end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=dict(environment),
            start_new_session=True,
        )
    step_back_session(child.pid, nice)
    return Process(identify(child.pid) or Identity(child.pid, 0.0), child)


def identify(pid: int) -> Identity | None:
    """Who has this process id now."""
    try:
        return Identity(pid, _started(psutil.Process(pid)))
    except psutil.Error:
        return None


def carries(identity: Identity, stack_id: str) -> bool:
    """Whether exactly this process runs and has the stack's id in its environment.

    For what was read from a file: after a reboot a recorded process id may be anybody's.
    """
    try:
        return lives(identity) and _carries(psutil.Process(identity.pid), stack_id)
    except psutil.Error:
        return False


def lives(identity: Identity) -> bool:
    """Whether exactly this process runs; one that ended and was not reaped does not."""
    try:
        process = psutil.Process(identity.pid)
        same = abs(_started(process) - identity.started) < _START_TOLERANCE
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def members(groups: Collection[int], stack_id: str) -> list[Identity]:
    """Living processes of these groups that carry the stack's id."""
    found = []
    for process in _processes():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) in groups and _carries(process, stack_id):
                found.append(Identity(process.pid, _started(process)))
    return found


def leaders(stack_id: str) -> dict[Identity, str]:
    """Process → part, of what a supervisor of this stack started and lives."""
    found = {}
    for process in _processes():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == process.pid and _carries(process, stack_id):
                part = process.environ().get(PART_VARIABLE)
                if part:
                    found[Identity(process.pid, _started(process))] = part
    return found


def send(identity: Identity, number: signal.Signals) -> None:
    """Send a signal, unless the process is gone."""
    if lives(identity):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(identity.pid, number)


def _processes() -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        if pid > 1:
            with contextlib.suppress(psutil.Error):
                yield psutil.Process(pid)


def _carries(process: psutil.Process, stack_id: str) -> bool:
    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    return process.environ().get(STACK_VARIABLE) == stack_id


def _started(process: psutil.Process) -> float:
    created = process.create_time()
    return created - psutil.boot_time() if psutil.LINUX else created
