"""What a child cost is the child's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dc_platform.bench.measure import BenchFailedError, run_child

MB = 2**20


def cost_of(code: str, log: Path) -> float:
    script = f"import json, time\n{code}\ntime.sleep(0.3)\nprint(json.dumps({{}}))"
    return run_child([sys.executable, "-c", script], environment={}, log=log).peak_rss_mb


def test_the_peak_of_a_child_is_not_its_parents(tmp_path: Path) -> None:
    ballast = bytearray(b"x") * (300 * MB)
    small = cost_of("", tmp_path / "log")
    large = cost_of(f"held = bytearray(b'x') * {200 * MB}", tmp_path / "log")
    assert len(ballast) == 300 * MB
    assert 0 < small < 100
    assert 200 <= large < 300


def test_a_child_that_fails_is_said_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(BenchFailedError, match="no such luck"):
        cost_of("raise SystemExit('no such luck')", tmp_path / "log")
