"""Printed commands work as they are printed."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dc_platform.stack.hints import Caller
from dc_platform.stack.record import StackRecord

RECORD = StackRecord(
    "id", {"dagster": "http://h:1", "gateway": "http://h:2", "query": "http://h:3"}
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation in `.venv` of the working directory; its `dcp` prints what it was given."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script = tmp_path / ".venv" / "bin" / "dcp"
    script.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.delenv("DCP_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return script


def commands(caller: Caller, data_dir: Path) -> list[str]:
    """The commands among the hints."""
    return [
        line[line.index(".venv") :] for line in caller.hints(RECORD, data_dir) if ".venv" in line
    ]


def test_dcp_is_called_where_it_is(installed: Path, tmp_path: Path) -> None:
    caller = Caller.here()
    assert caller.dcp(tmp_path / ".dcp", "down") == ".venv/bin/dcp down"
    for command in commands(caller, tmp_path / ".dcp"):
        subprocess.run(command, shell=True, check=True, capture_output=True)


def test_on_the_path_its_name_is_enough(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(installed.parent))
    assert Caller.here().dcp(tmp_path / ".dcp", "down") == "dcp down"


def test_another_dcp_on_the_path_is_not_ours(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "dcp"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(other.parent))
    assert Caller.here().dcp(tmp_path / ".dcp", "down") == ".venv/bin/dcp down"


def test_from_elsewhere_its_path_is_absolute(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = Caller.here().dcp(tmp_path / ".dcp", "down")
    assert command == f"{installed} down --data-dir {tmp_path / '.dcp'}"


@pytest.mark.parametrize("name", ["data", "my data"])
def test_another_data_directory_is_said(installed: Path, tmp_path: Path, name: str) -> None:
    caller = Caller.here()
    found = commands(caller, tmp_path / name)
    assert len(found) == 4
    for command in found:
        assert shlex.split(command)[0] == ".venv/bin/dcp"
        done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
        assert done.stdout.splitlines()[-2:] == ["--data-dir", name]


def test_a_data_directory_of_the_environment_is_said(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another shell may not have the variable.
    monkeypatch.setenv("DCP_DATA_DIR", "data")
    caller = Caller.here()
    assert caller.dcp(tmp_path / "data", "down").endswith("--data-dir data")
    assert caller.dcp(tmp_path / ".dcp", "down").endswith("--data-dir .dcp")


def test_the_hints_name_every_door(installed: Path, tmp_path: Path) -> None:
    text = "\n".join(Caller.here().hints(RECORD, tmp_path / ".dcp"))
    assert "http://h:1" in text
    assert "http://h:2/api/v1/events" in text
    assert "http://h:3/api/v1/sql" in text
    assert "http://h:3/dashboard/" in text
    assert ".venv/bin/dcp token create --scope query" in text
