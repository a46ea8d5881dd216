"""dbt in a process of its own: what it builds, what its tests found.

A process, because dbt keeps its adapters, its flags and its log handlers for as long as one lives, and
takes 100 MB; whoever waits for it needs none of that. A run gets a directory of its own. Between runs
only dbt's parsed project is kept: with it a run takes a second less.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dc_platform.errors import FatalError
from dc_platform.gold.project import project_directory

log = logging.getLogger(__name__)

_PROGRAM = "from dbt.cli.main import cli; cli()"
_PARSED = "partial_parse.msgpack"
_GOOD = frozenset({"success", "pass", "warn"})
_SHOWN = 5


class Outcome(NamedTuple):
    """What became of a model or a test. `failures` are the rows that a test found."""

    kind: str
    name: str
    status: str
    seconds: float
    failures: int
    message: str

    @property
    def good(self) -> bool:
        """Whether it was built, or holds."""
        return self.status in _GOOD


class AuditError(FatalError):
    """A model was not built or a test did not hold: nothing was published."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        bad = [o for o in outcomes if not o.good and o.status != "skipped"]
        shown = "; ".join(f"{o.name}: {o.message}" for o in bad[:_SHOWN])
        super().__init__(
            f"dbt refused what it built, so gold stays as it was: {shown}. `dcp gold build` tries"
            " again; docs/gold.md says what each test holds"
        )
        self.outcomes = list(outcomes)


def run_dbt(
    verb: Sequence[str],
    *,
    target: str,
    directory: Path,
    cache: Path,
    environment: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """`dbt VERB` on a target, in `directory`; raises AuditError when something is not good."""
    project = project_directory()
    made = directory / "target"
    made.mkdir(parents=True, exist_ok=True)
    kept = cache / f"{target}-{_PARSED}"
    with suppress(FileNotFoundError):
        shutil.copyfile(kept, made / _PARSED)
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-c", _PROGRAM, *verb),
            *("--target", target, "--project-dir", str(project), "--profiles-dir", str(project)),
            *("--target-path", str(made), "--log-path", str(directory / "logs")),
        ],
        cwd=directory,
        env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false", **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    log.debug("%s", done.stdout)
    outcomes = _outcomes(made / "run_results.json")
    if done.returncode == 0:
        _keep(made / _PARSED, kept)
        return outcomes
    if any(not outcome.good for outcome in outcomes):
        raise AuditError(outcomes)
    said = " ".join((done.stdout + done.stderr).split())[-1500:]
    raise FatalError(f"dbt {verb[0]} ended with exit code {done.returncode}: {said}")


def _outcomes(path: Path) -> list[Outcome]:
    try:
        results: list[dict[str, Any]] = json.loads(path.read_text())["results"]
    except FileNotFoundError:
        return []
    return [
        Outcome(
            kind=result["unique_id"].split(".")[0],
            name=result["unique_id"].split(".")[2],
            status=result["status"],
            seconds=round(result["execution_time"], 3),
            failures=result["failures"] or 0,
            message=" ".join((result["message"] or "").split()),
        )
        for result in results
    ]


def _keep(parsed: Path, kept: Path) -> None:
    """Replaced whole: another run may be reading it."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = kept.with_name(f".{kept.name}.{os.getpid()}")
        shutil.copyfile(parsed, beside)
        beside.replace(kept)
    except OSError as error:
        log.warning("dbt's parsed project is not kept: %s", error)
