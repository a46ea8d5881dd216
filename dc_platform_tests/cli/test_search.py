"""`dcp search` as people run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dc_platform.cli.main import app
from dc_platform_tests.helpers.records import block, gateway_line
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door

RUN = CliRunner()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    served = Served(tmp_path_factory.mktemp("served"))
    lines = [
        gateway_line(
            b'{"eventType":"app_log","payload":{"n":%d,"m":"disk <b> \\u001b[2J full"}}' % n
        )
        for n in range(130)
    ]
    served.view = view(served.lake, [block(lines[:50], 0)], [[block(lines[50:], 1)]])
    with Door(served).open() as opened:
        yield opened


def dcp(door: Door, *arguments: str) -> str:
    where = ["--data-dir", str(door.served.settings.data_dir)]
    result = RUN.invoke(app, ["search", *arguments, *where], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_events_and_where_they_match(door: Door) -> None:
    lines = dcp(door, "disk full", "--limit", "2").splitlines()
    assert lines[-1] == "(2 of 130 events)"
    assert " app_log " in lines[0]
    # Control characters of an event are no commands to the terminal, and nothing is markup.
    assert lines[1] == "    payload.m: disk <b>  [2J full"


def test_more_than_a_page(door: Door) -> None:
    found = json.loads(dcp(door, "text", "disk", "--limit", "120", "--json"))
    assert len({e["eventId"] for e in found["results"]}) == 120
    assert (found["totalCount"], found["complete"]) == (130, True)
    assert json.loads(dcp(door, "disk", "--type", "other", "--json"))["totalCount"] == 0
    assert json.loads(dcp(door, "disk", "--to", "2001-01-01", "--json"))["totalCount"] == 0


def test_the_index_is_built_and_told_of(door: Door) -> None:
    before = json.loads(dcp(door, "status", "--json"))
    assert (before["events"], before["eventsWaiting"], before["indexVersion"]) == (0, 50, None)
    assert json.loads(dcp(door, "rebuild", "--json"))["events"] == 50
    after = json.loads(dcp(door, "status", "--json"))
    assert (after["events"], after["eventsWaiting"]) == (50, 0)
    assert after["indexVersion"] == after["silverVersion"]
    assert json.loads(dcp(door, "disk", "--json"))["totalCount"] == 130


def test_a_reason_is_one_line(door: Door, tmp_path: Path) -> None:
    start = [sys.executable, "-m", "dc_platform.cli.main", "search"]
    for words, where, reason in (
        ("(disk", door.served.settings.data_dir, "not closed"),
        ("disk", tmp_path, "no stack"),
    ):
        done = subprocess.run(
            [*start, words, "--data-dir", str(where)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1
