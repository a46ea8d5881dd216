"""Processes that start in 0.1 s: forked from one that has imported the platform, and did nothing else.

To import it takes 2 CPU seconds, and the matrix starts 250 of them. Each is a process of its own, runs
a module as `python -m` does, and dies of SIGKILL as any other.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

_PRELOADED = [
    "pytest",
    "dc_platform.cli.main",
    "dc_platform.landing.lander",
    "dc_platform.landing.backfill",
    "dc_platform.orchestration.landing_run",
    "dc_platform.gateway.app",
    "dc_platform.serve",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_PRELOADED)


def started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
    """A module with its arguments, run as the main one."""
    process = _CONTEXT.Process(target=_run, args=(list(command), dict(environment), log))
    process.start()
    return process


def _run(command: list[str], environment: dict[str, str], log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ.update(environment)
    sys.argv = command
    # It is imported already; it is run from its beginning all the same.
    warnings.simplefilter("ignore", RuntimeWarning)
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
