"""Runs step back: gateway and serving go first, then landing, then all other runs.

The checks of 12,000,000 events in five minutes, at the priority of landing, made answers fall behind.
Landing itself steps back a little: with more than the machine holds it is Delta that gets later, and
neither acknowledgements nor answers.
Dagster makes the executor in the run's own process, and nowhere else: neither in the code server and
the daemon nor for `execute_in_process`. So it is made here, for all jobs, for what a person starts in
the UI, too.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor

from dc_platform.orchestration.assets import BRONZE_KEY

# Beside a busy process of landing it gets a tenth of a core (weight 56 to 526), and all of one that
# idles. 19 would be a 70th: what holds a lock of Dagster's SQLite file must come to its end.
NICE = 13
# Half of what gateway or serving get when both cores are busy.
LANDING_NICE = 3


def _make(context: dg.InitExecutorContext) -> dg.Executor:
    step_back(LANDING_NICE if lands(context) else NICE)
    return InProcessExecutor(retries=RetryMode.ENABLED)


yielding_executor = dg.ExecutorDefinition(
    name="in_process",
    executor_creation_fn=_make,
    description="All steps in the run's process, which has less priority than gateway and serving.",
)


def lands(context: dg.InitExecutorContext) -> bool:
    """Whether the run materializes bronze."""
    layer = context.job.get_definition().asset_layer
    return BRONZE_KEY in layer.selected_asset_keys


def step_back(nice: int) -> None:
    """Give this process the niceness `nice`, for good; one that has more already keeps it.

    On Linux each thread has its own: those that there are get it, those to come take it from them. The
    priority of reads and writes follows it there, as long as nobody sets that (ioprio_set(2)).
    """
    if sys.platform == "win32":
        return
    threads = [0]
    if sys.platform == "linux":
        threads = [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
    for thread in threads:
        # One may have ended since.
        with suppress(OSError):
            least = max(nice, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, least)
