"""A real stack for a bench, started, asked and ended by `dcp` as its users do."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from dc_platform.bench.measure import BenchFailedError

_START_SECONDS = 300


class Stack:
    """A running stack, with a source and a token of the bench's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.info: dict[str, Any] = json.loads((directory / "stack.json").read_text())
        source = json.loads(
            _dcp("source", "create", "bench", "--type", "SERVER", "--json", at=directory)
        )
        token = _dcp("token", "create", "--scope", "query", "--json", at=directory)
        self.source_id: str = source["sourceId"]
        self.key: str = source["apiKey"]
        self.token: str = json.loads(token)["token"]

    def pids(self) -> dict[str, int]:
        """Part → process id, as stack.json has it now."""
        found: dict[str, int] = json.loads((self.directory / "stack.json").read_text())["pids"]
        return found

    def memory_mb(self, part: str) -> float:
        """Resident memory of a part."""
        return float(psutil.Process(self.pids()[part]).memory_info().rss) / 2**20

    def serving_state(self) -> dict[str, Any]:
        """`complete` and `tailRows` of serving: events that have not landed, as it knows."""
        found: dict[str, Any] = httpx.get(f"{self.info['query']}/healthz", timeout=30).json()
        return found


@contextmanager
def running_stack(directory: Path, say: Callable[[str], None]) -> Iterator[Stack]:
    """A stack in `directory` on free ports, ended at the end."""
    say("starting a stack")
    _dcp("up", "--detach", "--ports", "auto", at=directory, seconds=_START_SECONDS)
    try:
        yield Stack(directory)
    finally:
        _dcp("down", at=directory)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Raise BenchFailedError when the condition does not hold within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchFailedError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)


def _dcp(*arguments: str, at: Path, seconds: float = 120) -> str:
    command = [sys.executable, "-m", "dc_platform.cli.main", *arguments, "--data-dir", str(at)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise BenchFailedError(f"dcp {' '.join(arguments)}: {done.stderr[-1000:]}")
    return done.stdout
