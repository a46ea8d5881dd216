"""Runs step back: gateway and serving go first, then landing, then all other runs.

The checks of 12,000,000 events in five minutes, at the priority of landing, made answers fall behind.
Landing itself steps back a little: with more than the machine holds it is Delta that gets later, and
neither acknowledgements nor answers.
Dagster makes the executor in the run's own process, and nowhere else: neither in the code server and
the daemon nor for `execute_in_process`. So it is made here, for all jobs, for what a person starts in
the UI, too.
"""

from __future__ import annotations

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor

from dc_platform.orchestration.assets import BRONZE_KEY
from dc_platform.priority import BEHIND, LAST, step_back


def _make(context: dg.InitExecutorContext) -> dg.Executor:
    step_back(BEHIND if lands(context) else LAST)
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
