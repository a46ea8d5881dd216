"""The Dagster processes of a soak, each with the stack's real instance.

    landing        one long run of the job `landing`; a line of JSON per 100 commits in SAMPLES
    housekeeping   the jobs `maintenance` and `checks`, again and again, until it is told to end
    checks         the job `checks`, once

The latter two end with an error when a job fails, or a promise is broken.

They are what the stack runs, but for the daemon that starts them: that would cost each run 10 s of
processor time, and the soak's hours last half a minute.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import psutil

from dc_platform.bench.measure import BenchFailedError
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE, TABLES
from dc_platform.definitions import defs
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import Batch, Landed
from dc_platform.landing.commits import Committer
from dc_platform.settings import settings

EVERY = 100
_HOUSEKEEPING_SECONDS = 30.0


class Recorder:
    """Times each landing; each hundredth time it looks at everything that could grow."""

    def __init__(self, samples: Path) -> None:
        self._samples = samples
        self._seconds: list[float] = []
        self._cpu = time.process_time()
        self._commits = 0
        self._begun = time.monotonic()

    def landed(self, committer: Committer, seconds: float) -> None:
        """Note one landing: bronze, silver and border committed."""
        self._seconds.append(seconds)
        self._commits += 1
        if self._commits % EVERY == 0:
            with self._samples.open("a") as file:
                file.write(json.dumps(self._sample(committer)) + "\n")
            self._seconds.clear()
            self._cpu = time.process_time()

    def _sample(self, committer: Committer) -> dict[str, Any]:
        lake = Lake(settings().lake)
        p50, p95 = np.percentile(self._seconds, [50, 95])
        logs = {spec.name: len(lake.listing(spec, "_delta_log")) for spec in TABLES}
        live = {
            spec.name: len(committer.table(spec).snapshot().actions)
            for spec in (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE)
        }
        return {
            "commits": self._commits,
            "seconds": round(time.monotonic() - self._begun, 2),
            "p50_ms": round(p50 * 1000, 2),
            "p95_ms": round(p95 * 1000, 2),
            "cpu_ms": round((time.process_time() - self._cpu) / EVERY * 1000, 2),
            "live_files": live,
            "log_files": logs,
            "rss_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
            "lake_mb": round(_bytes(Path(lake.uri)) / 2**20, 2),
            "dagster_mb": round(_bytes(Path(os.environ["DAGSTER_SQLITE_DIR"])) / 2**20, 2),
        }


def _bytes(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(f"{folder}/{name}").st_size
            except FileNotFoundError:
                continue
    return total


def _recording(recorder: Recorder) -> Callable[[Committer, Batch], Landed]:
    land = Committer.land

    def timed(committer: Committer, batch: Batch) -> Landed:
        begun = time.perf_counter()
        landed = land(committer, batch)
        recorder.landed(committer, time.perf_counter() - begun)
        return landed

    return timed


def run_job(instance: dg.DagsterInstance, job: dg.JobDefinition) -> None:
    """Run a job to its end. Raises BenchFailedError when it fails."""
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    if not result.success:
        why = [event.message for event in result.all_events if event.is_failure]
        raise BenchFailedError(f"the job {job.name} failed: {why}")


def check_promises(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]) -> None:
    """Raises BenchFailedError when the newest evaluation of one of these checks is an error."""
    broken = {}
    for key in keys:
        record = instance.get_latest_asset_check_evaluation_record(key)
        found = record.event.asset_check_evaluation if record and record.event else None
        if found is None:
            broken[key.name] = "was not evaluated"
        elif not found.passed and found.severity == dg.AssetCheckSeverity.ERROR:
            broken[key.name] = str({name: value.value for name, value in found.metadata.items()})
        elif not found.passed:
            print(f"{key.name}: a warning: {found.metadata}", file=sys.stderr)
    if broken:
        raise BenchFailedError(f"promises are broken: {broken}")


def _landing(instance: dg.DagsterInstance, samples: Path) -> None:
    Committer.land = _recording(Recorder(samples))  # type: ignore[method-assign,assignment]
    run_job(instance, defs.get_job_def("landing"))


def _checks(instance: dg.DagsterInstance) -> None:
    run_job(instance, defs.get_job_def("checks"))
    check_promises(instance, defs.get_repository_def().asset_graph.asset_check_keys)


def _housekeeping(instance: dg.DagsterInstance) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    while not stop.wait(_HOUSEKEEPING_SECONDS):
        run_job(instance, defs.get_job_def("maintenance"))
        _checks(instance)


if __name__ == "__main__":
    with dg.DagsterInstance.from_config(os.environ["DAGSTER_HOME"]) as the_instance:
        if sys.argv[1] == "landing":
            _landing(the_instance, Path(sys.argv[2]))
        elif sys.argv[1] == "housekeeping":
            _housekeeping(the_instance)
        else:
            _checks(the_instance)
