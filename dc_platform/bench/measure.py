"""Runs a child process and tells what it cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dc_platform.errors import PlatformError


class BenchFailedError(PlatformError):
    """A measured program failed; the message has its last lines."""


@dataclass(frozen=True)
class Cost:
    """What a child printed as its last line (JSON), and what it cost."""

    result: dict[str, Any]
    cpu_seconds: float
    peak_rss_mb: float


def run_python(
    module: str, arguments: Sequence[str], *, environment: Mapping[str, str], log: Path
) -> Cost:
    """Run `python -m module` to its end."""
    command = [sys.executable, "-m", module, *arguments]
    with log.open("wb") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ, **environment}
        )
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stdout.close()
    if child.returncode != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise BenchFailedError(f"{module} ended with {child.returncode}:\n{tail}")
    last = output.decode().strip().splitlines()[-1]
    return Cost(json.loads(last), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
