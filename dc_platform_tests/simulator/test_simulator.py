"""Schedules from seeds: all of them well, each the same every time, and wrong when the code is.

`make test-crash` plays 2,000; the regular suite a few, so that a change of the platform that the
simulator cannot follow is seen at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.table import LakeTable
from dc_platform.landing import batch_commit
from dc_platform.landing.commits import Committer
from dc_platform.landing.identities import IdentityIndex
from dc_platform.landing.losses import Losses
from dc_platform.points import Point
from dc_platform_tests.simulator import lander
from dc_platform_tests.simulator.world import Report, play

FEW = 16
MANY = int(os.environ.get("SCHEDULES", "2000"))
# Every mutation is found by one of so many seeds.
ENOUGH = 250


def test_few_schedules() -> None:
    for seed in range(FEW):
        report = play(seed)
        assert not report.problems, str(report)


def test_a_seed_is_a_schedule() -> None:
    for seed in (4, 5):
        first, second = play(seed), play(seed)
        assert first.trace == second.trace
        assert len(first.trace) > 40


@pytest.mark.crash
@pytest.mark.timeout(3600)
def test_many_schedules() -> None:
    passed: set[str] = set()
    failed: list[Report] = []
    events = 0
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for report in pool.map(play, range(MANY), chunksize=25):
            passed |= report.counts.keys()
            events += report.events
            if report.problems:
                failed.append(report)
                print(report, flush=True)
            if report.seed % 200 == 199:
                print(f"{report.seed + 1} of {MANY} schedules", flush=True)
    print(f"{MANY} schedules, {events} events, {len(failed)} failed", flush=True)
    assert not failed, "\n".join(map(str, failed[:5]))
    # The matrix has the points of compaction, and of a backfill, which finds nothing to change here.
    merging = {Point.MERGED_WRITTEN, Point.MERGED_COMMITTED}
    unreached = {p for p in Point if p.part == "landing"} - passed - merging
    assert not unreached, f"no schedule passes {unreached}"


# --- the simulator finds what is wrong: each of these makes the platform lose or double ---

Patch = pytest.MonkeyPatch


def no_fence(patch: Patch) -> None:
    """Whoever was overtaken commits all the same."""
    patch.setattr(Committer, "_check_fence", lambda *_: None)
    patch.setattr(Committer, "_check_silver_unmoved", lambda self: self._silver.refresh())


def silver_first(patch: Patch) -> None:
    """Bronze after silver: a crash in between leaves silver ahead."""
    bronze, silver = Committer._land_bronze, Committer._land_silver
    held: list[Any] = []

    def land_silver(self: Committer, *args: Any) -> int:
        landed = silver(self, *args)
        bronze(self, *held.pop())
        return landed

    patch.setattr(Committer, "_land_bronze", lambda self, *args: held.append(args))
    patch.setattr(Committer, "_land_silver", land_silver)


def refused_is_refused(patch: Patch) -> None:
    """Nobody looks into the log after a commit that was answered with an error."""
    patch.setattr(LakeTable, "history", lambda *_: [])
    patch.setattr(batch_commit, "any_live", lambda *_: False)


def silver_rebased(patch: Patch) -> None:
    """Silver is committed over what others committed since the look-up."""
    commit = LakeTable.commit

    def rebased(self: LakeTable, files: Any, **more: Any) -> int:
        return commit(self, files, **{**more, "exact": False})

    patch.setattr(LakeTable, "commit", rebased)


def newcomers_ignored(patch: Patch) -> None:
    """The look-up is not repeated when silver moved."""

    def ignored(self: Committer, rows: Any, keys: Any, file: Any, _at: Any) -> Any:
        self._snapshot = self._silver.snapshot()
        return rows, keys, file

    patch.setattr(Committer, "_without_newcomers", ignored)


def nothing_is_known(patch: Patch) -> None:
    """Duplicates are only looked for within a batch."""
    patch.setattr(IdentityIndex, "known", lambda _s, keys, *_: np.zeros(len(keys), bool))


def gaps_forgotten(patch: Patch) -> None:
    """What Kafka deleted is on record nowhere."""
    patch.setattr(Committer, "_record_gaps", lambda *_: None)


def no_replay(patch: Patch) -> None:
    """What only bronze has stays there."""
    patch.setattr(lander, "replay_bronze", lambda *_, **__: iter(()))


def bronze_is_not_asked(patch: Patch) -> None:
    """What Kafka deletes is a gap, also where bronze has it."""
    patch.setattr(Losses, "check", lambda *_: None)


def offsets_alone(patch: Patch) -> None:
    """Offsets are committed before the files that they cover."""
    commit = LakeTable.commit

    def twice(self: LakeTable, files: Any, *, txns: Any, **more: Any) -> int:
        commit(self, [], txns=txns, **more)
        return commit(self, files, txns={}, **more)

    patch.setattr(LakeTable, "commit", twice)


def store_errors_are_conflicts(patch: Patch) -> None:
    """A file whose commit was not answered is removed."""
    commit = Committer._commit

    def hasty(self: Committer, table: Any, files: Any, *args: Any, **more: Any) -> bool:
        try:
            return commit(self, table, files, *args, **more)
        except StoreUnavailableError:
            for file in files:
                self._lake.remove(table.spec, file.path)
            raise

    patch.setattr(Committer, "_commit", hasty)


MUTATIONS = [
    no_fence,
    silver_first,
    refused_is_refused,
    silver_rebased,
    newcomers_ignored,
    nothing_is_known,
    gaps_forgotten,
    no_replay,
    bronze_is_not_asked,
    offsets_alone,
    store_errors_are_conflicts,
]


def seeds_until_found(limit: int) -> int | None:
    """How many seeds it took."""
    for seed in range(limit):
        if play(seed).problems:
            return seed + 1
    return None


@pytest.mark.crash
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
def test_a_mutation_is_found(
    monkeypatch: pytest.MonkeyPatch, mutation: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutation(monkeypatch)
    seeds = seeds_until_found(ENOUGH)
    print(f"{mutation.__name__}: found by seed {seeds}", flush=True)
    assert seeds is not None, f"no seed below {ENOUGH} finds {mutation.__doc__}"


def test_one_mutation_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_known(monkeypatch)
    assert seeds_until_found(10) is not None
