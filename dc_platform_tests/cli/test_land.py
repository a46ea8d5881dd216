"""`dcp land`: how it ended is its exit code; a wrong variable is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dc_platform.cli import land as verb
from dc_platform.landing.lander import Ended, Totals


def landed(monkeypatch: pytest.MonkeyPatch, ended: Ended, **options: Any) -> None:
    """Run the verb with a loop that ends so."""
    made = SimpleNamespace(totals=Totals(received=3), run=lambda *_, **__: ended)
    monkeypatch.setattr("dc_platform.landing.lander.Lander", lambda *_, **__: made)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("dc_platform.logs.configure_logging", lambda *_: None)
    monkeypatch.setenv("DCP_UNKNOWN_SOURCES", "accept")
    verb.land(**options)


@pytest.mark.parametrize("until", [True, False])
@pytest.mark.parametrize("as_json", [True, False])
def test_fenced_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], until: bool, as_json: bool
) -> None:
    with pytest.raises(verb.NotCaughtUpError, match="end that one and run dcp land again"):
        landed(monkeypatch, Ended.FENCED, until_caught_up=until, as_json=as_json)
    out = capsys.readouterr().out
    assert json.loads(out)["ended"] == "fenced" if as_json else out.startswith("fenced: 3 events")


def test_stopped_is_an_error_when_all_was_to_be_landed(monkeypatch: pytest.MonkeyPatch) -> None:
    landed(monkeypatch, Ended.STOPPED)
    landed(monkeypatch, Ended.CAUGHT_UP, until_caught_up=True)
    with pytest.raises(verb.NotCaughtUpError, match="stopped before all was landed"):
        landed(monkeypatch, Ended.STOPPED, until_caught_up=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [("DCP_LANDING_FILE_MB", "abc"), ("DCP_LAKE_URI", "s3://bucket/lake")],
)
@pytest.mark.parametrize("in_stack", [True, False])
def test_a_wrong_variable_is_one_line(
    tmp_path: Path, name: str, value: str, in_stack: bool
) -> None:
    stack = {"kafka": "127.0.0.1:9", "topic": "t", "lake": value if "LAKE" in name else "lake"}
    (tmp_path / "stack.json").write_text(json.dumps(stack))
    arguments = ["--data-dir", str(tmp_path)] if in_stack else []
    done = subprocess.run(
        [sys.executable, "-m", "dc_platform.cli.main", "land", "--until-caught-up", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, name: value},
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name}: ")
    assert done.stderr.count("\n") == 1
