"""`dcp report` and `dcp sql --as-of`, on a served lake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dc_platform.cli.main import app
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.records import block, gateway_line
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    served = Served(tmp_path_factory.mktemp("served"))
    lines = [
        gateway_line(
            b'{"eventId":"%s","eventType":"%s","payload":{}}' % (some_uuid(n).encode(), kind)
        )
        for n, kind in enumerate((b"a", b"b", b"b"))
    ]
    served.view = view(served.lake, [block(lines)])
    with Door(served).open() as opened:
        yield opened


def dcp(door: Door, *arguments: str, fails: str = "") -> str:
    """What it prints, or, with `fails`, checks the words of its error."""
    directory = str(door.served.settings.data_dir)
    done = CliRunner().invoke(app, [*arguments, "--data-dir", directory])
    if fails:
        assert done.exception is not None
        assert fails in str(done.exception)
    else:
        assert done.exception is None, done.exception
    return done.stdout


def test_a_report_from_its_definition_to_its_end(door: Door, tmp_path: Path) -> None:
    sql = "select event_type as t, count(*) as n from events where event_type <> $but group by 1"
    dcp(door, "report", "create", "kinds", sql, "--parameter", "but=a", "--description", "By type")
    dcp(door, "report", "create", "kinds", sql, "--parameter", "but", fails="there is a report")
    assert dcp(door, "report", "list") == "kinds  (but)  By type\n"
    [listed] = json.loads(dcp(door, "report", "list", "--json"))
    assert listed == json.loads(dcp(door, "report", "show", "kinds"))
    assert listed["changedBy"] == "cli"
    run = ("report", "run", "kinds", "--format", "json")
    assert json.loads(dcp(door, *run)) == [{"t": "b", "n": 2}]
    assert json.loads(dcp(door, *run, "--set", "but=b")) == [{"t": "a", "n": 1}]
    assert dcp(door, "report", "run", "kinds").splitlines()[-1] == "(1 row)"
    dcp(door, *run, "--set", "and=b", fails="and is no parameter")
    dcp(door, *run, "--set", "but", fails="--set takes NAME=VALUE")
    file = tmp_path / "all.json"
    body = {"limit": {"$parameter": "most"}, "aggregations": [{"function": "COUNT"}]}
    file.write_text(json.dumps(body))
    dcp(door, "report", "change", "kinds", f"@{file}", "--parameter", "most:number=5")
    assert json.loads(dcp(door, *run))["results"] == [{"count": 3}]
    assert dcp(door, "report", "run", "kinds", "--format", "csv") == '"count"\n3\n'
    assert dcp(door, "report", "delete", "kinds") == "report kinds is deleted\n"
    dcp(door, "report", "show", "kinds", fails="there is no report kinds")
    dcp(door, *run, fails="There is no report kinds")


def test_the_past(door: Door) -> None:
    count = ("sql", "select count(*) as n from events", "--format", "csv")
    assert door.served.view is not None
    newest = str(door.served.view.silver.version)
    assert dcp(door, *count, "--as-of", newest).splitlines() == ['"n"', "3"]
    assert dcp(door, *count, "--as-of", "0").splitlines() == ['"n"', "0"]
    dcp(door, *count, "--as-of", "2001-01-01", fails="can be asked as of version 0")
    dcp(door, *count, "--as-of", "0", "--engine", "trino", fails="--as-of is for DuckDB")


def test_a_definition_that_makes_no_sense(door: Door) -> None:
    for arguments, words in (
        (["x", "select 1", "--parameter", "a:COLOUR"], "COLOUR"),
        (["No", "select 1"], "'No' is not like"),
        (["x", "@/nowhere/x.sql"], "nowhere"),
    ):
        dcp(door, "report", "create", *arguments, fails=words)
