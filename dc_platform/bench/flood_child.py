"""The process of `flood_load.py`, as the bench that started it sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.stack import Stack

_END_SECONDS = 120


class LoadProcess:
    """Sends at the rate that it was last given, from 0; ended at the end."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._acks = directory / "acks.arrow"
        self._log = directory / "load.log"
        self._command = [
            *(sys.executable, "-m", "dc_platform.bench.flood_load"),
            *("--bootstrap", stack.info["kafka"], "--topic", stack.info["topic"]),
            *("--acks", str(self._acks)),
        ]

    def __enter__(self) -> LoadProcess:
        with self._log.open("wb") as errors:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def set_rate(self, events_per_second: int) -> None:
        """Offer so many events per second from now on."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(b"%d\n" % events_per_second)
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._failed() from None

    def end(self) -> tuple[pa.Table, dict[str, Any]]:
        """Send no more; gives what was acknowledged (`flood_load.ACKS`), and its own figures."""
        output, _ = self._child.communicate(timeout=_END_SECONDS)
        if self._child.returncode != 0:
            raise self._failed()
        with pa.OSFile(str(self._acks)) as file:
            acks = pa.ipc.open_file(file).read_all()
        return acks, json.loads(output.decode().splitlines()[-1])

    def _failed(self) -> BenchFailedError:
        said = self._log.read_text(errors="replace")[-1000:]
        return BenchFailedError(f"the load generator ended with {self._child.wait()}: {said}")
