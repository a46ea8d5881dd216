"""A run of `dcp retention run` is killed at each of its points; the next one completes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dc_platform.contracts.ops_tables import DELETIONS
from dc_platform.lake.store import Lake
from dc_platform.points import Point
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import silver
from dc_platform_tests.helpers.retention import ids, policies, registry
from dc_platform_tests.retention.test_deletion import assert_nothing_is_missed, land, records

POINTS = [point for point in Point if point.part in ("deletion", "tiers")]


def dcp(directory: Path, *arguments: str, **environment: str) -> int:
    command = [sys.executable, "-m", "dc_platform.cli.main", "retention", *arguments]
    # Files of old events move at once, and become cold.
    days = {"DCP_TIER_HOT_DAYS": "0.001", "DCP_TIER_WARM_DAYS": "0.002"}
    return subprocess.run(
        [*command, "--data-dir", str(directory)],
        env={**os.environ, **days, **environment},
        check=False,
    ).returncode


@pytest.mark.crash
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_is_completed_by_the_next(tmp_path: Path, point: Point) -> None:
    lake = Lake(str(tmp_path / "lake"))
    land(lake, records())
    policies(registry(tmp_path), {"*": 30, "audit": 365})
    assert dcp(tmp_path, "run", "--at-once", DCP_CRASH_AT=str(point)) == -signal.SIGKILL
    assert_nothing_is_missed(lake)
    assert dcp(tmp_path, "run", "--at-once") == 0
    assert set(silver(lake)) == ids([3, 4, 5, 6])
    assert sorted(rows for (rows,) in read_table(lake, DELETIONS, "rows")) == [1, 3, 5]
    assert_nothing_is_missed(lake)
