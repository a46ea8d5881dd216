"""Crash points: each is in the code once, and an armed one ends the process there and then."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import dc_platform
from dc_platform.errors import ConfigurationError
from dc_platform.points import Point, armed, unarmed

ROOT = Path(dc_platform.__file__).parent


def passed_in_the_code() -> Counter[str]:
    """Which points are handed to a hook, and how often."""
    names = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                called = getattr(function, "attr", getattr(function, "id", ""))
                if called in ("reached", "_reached") and node.args:
                    names.append(ast.unparse(node.args[0]))
    return Counter(names)


def test_every_point_is_passed_in_one_place() -> None:
    assert passed_in_the_code() == {f"Point.{point.name}": 1 for point in Point}


def test_the_page_has_the_points_and_no_others() -> None:
    page = (ROOT.parent / "docs" / "reliability.md").read_text()
    section = page.split("## The points")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{p.value}` | {p.part} | {p.meaning} |" for p in Point]


def test_an_armed_process_dies_at_the_nth_time() -> None:
    program = """
from dc_platform.points import armed
reached = armed("after-bronze:2")
for point in ("after bronze", "after silver", "after bronze", "never"):
    print(point, flush=True)
    reached(point)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split("\n")[:-1] == ["after bronze", "after silver", "after bronze"]


@pytest.mark.parametrize("wrong", ["nowhere", "after bronze:x", ":2"])
def test_a_point_that_there_is_not_is_said_so(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"docs/reliability\.md"):
        armed(wrong)


def test_unarmed_nothing_is_asked() -> None:
    assert armed("") is unarmed
