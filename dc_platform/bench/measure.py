"""Runs a child process and tells what it cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from dc_platform.errors import PlatformError

_LIMIT_SECONDS = 900.0
_LOOK_SECONDS = 0.05


class BenchFailedError(PlatformError):
    """A measured program failed, or what it wrote is not what was expected."""


@dataclass(frozen=True)
class Cost:
    """What a child printed as its last line (JSON), and what it cost.

    `cpu_seconds` are those of the child and of the children that it waited for, `peak_rss_mb` the
    child's own; `started_at` (epoch seconds) and `wall_seconds` count from the start of its process.
    """

    result: dict[str, Any]
    cpu_seconds: float
    peak_rss_mb: float
    started_at: float
    wall_seconds: float


def run_python(
    module: str, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path
) -> Cost:
    """Run `python -m module` to its end."""
    command = [sys.executable, "-m", module, *arguments]
    return run_child(command, environment=environment, log=log)


def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    limit_seconds: float = _LIMIT_SECONDS,
) -> Cost:
    """Run a command to its end; its last line on standard output is JSON, the rest goes to `log`.

    Raises BenchFailedError when it fails, or takes longer than `limit_seconds`.
    """
    started_at, begun = time.time(), time.monotonic()
    # Files, not pipes: a child's own child that lives on holds a pipe open.
    with log.open("wb") as errors, TemporaryFile() as output:
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=errors,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        with _ended(child.pid, limit_seconds), _Peak(child.pid) as peak:
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - begun
        output.seek(0)
        said = output.read().decode()
    name = next(part for part in command[1:] if part != "-m")
    if child.returncode != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise BenchFailedError(f"{name} ended with {child.returncode} after {wall:.0f} s:\n{tail}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(json.loads(said.strip().splitlines()[-1]), cpu, peak.mb, started_at, wall)


class _Peak:
    """The most memory that a process has held, as the kernel says it, looked at 20 times a second.

    Not the `ru_maxrss` of its end: that of a new process begins with what its parent holds.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.mb = 0.0

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self._look()
        while not self._stop.wait(_LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        # It has ended when there is no such file, or no such line.
        with suppress(OSError):
            for line in self._status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.mb = max(self.mb, int(line.split()[1]) / 1024)


@contextmanager
def _ended(group: int, limit_seconds: float) -> Iterator[None]:
    """Nothing of the child's session is left: not after the limit, and not after an interrupt."""

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)

    timer = threading.Timer(limit_seconds, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        kill()
