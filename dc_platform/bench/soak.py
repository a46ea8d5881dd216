"""`dcp bench soak`: many thousand commits, and nothing that grows with them.

A producer gives a few events at a time, so the landing run commits them as fast as it can. All that
goes on beside it for months does so here: compaction of open and closed hours, checkpoints, log
clean-up, vacuum, reports to Dagster, the checks, the pruning of Dagster's storage. Two things are
scaled so that they happen within half an hour: an ingest hour lasts 30 seconds, and what is old is so
after minutes. At the end everything is compared with what was sent.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.soak_audit import audit_soak
from dc_platform.bench.soak_plot import plot_soak
from dc_platform.bench.soak_producer import Producer
from dc_platform.registry.database import migrate
from dc_platform.stack import ports
from dc_platform.stack.kafka import LocalKafka
from dc_platform.stack.parts import instance_settings

TOPIC = "soak"
_SCALED = {
    # An hour, and the files of it.
    "DCP_COMPACTION_HOUR_SECONDS": "30",
    "DCP_COMPACTION_FILE_MB": "16",
    # Minutes instead of two hours; days instead of three.
    "DCP_REMOVED_FILES_MINUTES": "3",
    "DCP_DAGSTER_KEEP_DAYS": str(4 / 1440),
    "DCP_LANDING_REPORT_SECONDS": "5",
    # Commits as fast as they can be made, in one run.
    "DCP_LANDING_FRESHNESS_SECONDS": "0.01",
    "DCP_LANDING_RUN_MINUTES": "100000",
    "DCP_UNKNOWN_SOURCES": "accept",
    "DCP_IDENTITY_MEMORY_MB": "128",
}
_STALL_SECONDS = 600.0
_END_SECONDS = 300.0
_SIGNAL_SECONDS = 20.0
# The ends that are compared, in commits; of a short soak a fifth.
_WINDOW = 1_000


def bench_soak(
    *, commits: int, rate: int, out: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make `commits` commits in a directory of its own, which is removed at the end.

    `rate`: records of ten events per second that are offered. `out`: where the samples, the figures
    and the plot are kept.
    """
    directory = Path(tempfile.mkdtemp(prefix="dcp-soak-"))
    chosen = ports.choose(needed=("kafka", "kafka_controller"), remembered={}, auto=True)
    try:
        with LocalKafka(directory / "kafka", chosen["kafka"], chosen["kafka_controller"]) as kafka:
            result, samples = _soak(directory, kafka.bootstrap, commits, rate, say)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "soak.json").write_text(json.dumps({"summary": result, "samples": samples}))
            plot_soak(samples, out / "soak.png")
            say(f"samples, figures and plot: {out}")
        return result
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _soak(
    directory: Path, bootstrap: str, commits: int, rate: int, say: Callable[[str], None]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    began = datetime.now(UTC).date()
    environment = {
        **os.environ,
        **_SCALED,
        "DCP_KAFKA_BOOTSTRAP": bootstrap,
        "DCP_TOPIC": TOPIC,
        "DCP_DATA_DIR": str(directory / "data"),
        "DAGSTER_HOME": str(directory / "dagster"),
        "DAGSTER_SQLITE_DIR": str(directory / "dagster" / "storage"),
    }
    Path(environment["DAGSTER_SQLITE_DIR"]).mkdir(parents=True)
    (directory / "data").mkdir()
    migrate(f"sqlite:///{directory / 'data' / 'registry.db'}")
    shutil.copyfile(instance_settings(), directory / "dagster" / "dagster.yaml")
    samples = directory / "samples.jsonl"
    producer = Producer(bootstrap, TOPIC, rate)
    log = directory / "soak.log"
    with _child("landing", str(samples), environment=environment, log=log) as landing:
        stopped = threading.Event()
        feeding = threading.Thread(target=producer.run, args=(stopped,), name="producer")
        feeding.start()
        try:
            # Two processes that create Dagster's SQLite tables at once: one of them fails.
            children = {"landing": landing}
            _watch(samples, 1, children, log, say)
            with _child("housekeeping", environment=environment, log=log) as housekeeping:
                children["housekeeping"] = housekeeping
                _watch(samples, commits, children, log, say)
        finally:
            stopped.set()
            feeding.join()
        say(f"{producer.events:,} events sent; landing what is left, then counting")
        lake = str(directory / "data" / "lake")
        _wait_until_landed(lake, bootstrap, landing)
    found = audit_soak(lake, producer, since=began)
    _audited(environment, log)
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    return {**_summary(lines), **found}, lines


@contextmanager
def _child(
    *arguments: str, environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process of `soak_run`, ended with SIGTERM: a landing run finishes its commit then.

    Within a job Dagster takes the signal for the job's end, not for the process's: it is sent again.
    """
    command = [sys.executable, "-m", "dc_platform.bench.soak_run", *arguments]
    with log.open("ab") as sink:
        child = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
    try:
        yield child
    finally:
        deadline = time.monotonic() + _END_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            child.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(_SIGNAL_SECONDS)
        child.kill()
        child.wait()


def _watch(
    samples: Path,
    commits: int,
    children: Mapping[str, subprocess.Popen[bytes]],
    log: Path,
    say: Callable[[str], None],
) -> None:
    """Until so many commits are made; says each thousandth. No child may end before."""
    seen = 0
    moved = time.monotonic()
    while seen < commits:
        time.sleep(1)
        last = samples.read_text().splitlines()[-1:] if samples.exists() else []
        with suppress(ValueError):
            for sample in map(json.loads, last):
                if sample["commits"] // 1_000 > seen // 1_000:
                    say(json.dumps(sample))
                if sample["commits"] > seen:
                    seen, moved = sample["commits"], time.monotonic()
        ended = [name for name, child in children.items() if child.poll() is not None]
        if ended:
            raise BenchFailedError(f"{ended[0]} ended after {seen} commits:\n{_tail(log)}")
        if time.monotonic() - moved > _STALL_SECONDS:
            raise BenchFailedError(f"landing stood still after {seen} commits:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _audited(environment: dict[str, str], log: Path) -> None:
    """The checks once more, now that all has landed, and the ledger from the tables alone."""
    for module, *arguments in (
        ("dc_platform.bench.soak_run", "checks"),
        ("dc_platform.cli.main", "audit", "--json"),
    ):
        command = [sys.executable, "-m", module, *arguments]
        with log.open("ab") as sink:
            done = subprocess.run(command, stdout=sink, stderr=sink, env=environment, check=False)
        if done.returncode:
            raise BenchFailedError(f"{module} found something:\n{_tail(log)}")


def _wait_until_landed(lake: str, bootstrap: str, landing: subprocess.Popen[bytes]) -> None:
    from dc_platform.broker.client import ensure_topic
    from dc_platform.broker.reader import reader_for
    from dc_platform.contracts.tables import SILVER_EVENTS
    from dc_platform.lake.store import Lake
    from dc_platform.lake.table import LakeTable
    from dc_platform.landing.batch_commit import next_offset

    info = ensure_topic(bootstrap, TOPIC, partitions=4, replication=1)
    reader = reader_for(bootstrap, info)
    silver = LakeTable(Lake(lake), SILVER_EVENTS)
    deadline = time.monotonic() + _END_SECONDS
    try:
        ends = reader.end_offsets()
        while any((next_offset(silver, info, p) or 0) < end for p, end in ends.items()):
            if time.monotonic() > deadline or landing.poll() is not None:
                raise BenchFailedError("landing did not catch up after the producer had ended")
            time.sleep(0.5)
            silver.refresh()
    finally:
        reader.close()


def _summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    commits = samples[-1]["commits"]
    window = min(_WINDOW, commits // 5) // 100
    first, last = samples[:window], samples[-window:]

    def middle(of: list[dict[str, Any]], name: str) -> float:
        return float(statistics.median(sample[name] for sample in of))

    result: dict[str, Any] = {
        "commits": commits,
        "commits_per_second": round(commits / samples[-1]["seconds"], 1),
        "compared_commits": window * 100,
    }
    for name in ("p50_ms", "p95_ms", "cpu_ms"):
        start, end = middle(first, name), middle(last, name)
        result |= {f"first_{name}": start, f"last_{name}": end}
        result[f"{name.removesuffix('_ms')}_ratio"] = round(end / start, 3)
    for name in ("live_files", "log_files"):
        for table in samples[0][name]:
            most = max(sample[name][table] for sample in samples)
            result[f"most_{name}_{table}"] = most
    for name in ("rss_mb", "lake_mb", "dagster_mb"):
        result |= {f"first_{name}": middle(first, name), f"last_{name}": middle(last, name)}
        result[f"most_{name}"] = max(sample[name] for sample in samples)
    return result
