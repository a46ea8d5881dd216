"""A verb of `dcp` in a process of its own, on a data directory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def dcp(data_dir: Path, *arguments: str, fails: bool = False) -> str:
    """What it prints; with `fails` what it says of why it failed."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dc_platform.cli.main", *arguments),
            *("--data-dir", str(data_dir)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout
