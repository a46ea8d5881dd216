"""The tutorial's commands run, one after the other, and print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from dc_platform.stack.trino_tables import VIEW
from dc_platform_tests.e2e.platform import Platform, wait_for
from dc_platform_tests.helpers.trino import SharedTrino

pytestmark = [pytest.mark.stack, pytest.mark.trino, pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
# The stack of all tests is used, and its end is not the tutorial's.
_NOT_HERE = ("make setup", "export PATH=", "dcp up", "dcp down")
# What lands, or is built, is there a little later; asking again changes nothing.
_PATIENCE_SECONDS = 120.0


class Step(NamedTuple):
    """A command of the shell or a program of Python, and what it prints."""

    code: str
    shown: str
    is_python: bool

    @property
    def only_asks(self) -> bool:
        """Whether it may be run again until it prints what is shown."""
        asks = ("dcp sql", "dcp search", "dcp audit", "dcp quarantine list", "curl -s -H")
        is_query = self.code.startswith(asks) and "X-API-Key" not in self.code
        return is_query or "partitionBackfillOrError" in self.code

    def matches(self, printed: str) -> bool:
        """Whether that is what the page shows: `…` is anything, alone on a line any lines."""
        lines = [
            r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + r"[ \t]*\n"
            for line in self.shown.splitlines()
        ]
        return re.fullmatch("".join(lines), printed.rstrip("\n") + "\n") is not None


def steps() -> Iterator[Step]:
    """In the order of the page."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for number, (kind, text) in enumerate(blocks):
        if kind == "console":
            yield from _commands(text)
        elif kind == "python":
            following = blocks[number + 1 : number + 2]
            shown = following[0][1] if following and following[0][0] == "text" else ""
            yield Step(text, shown.rstrip("\n"), is_python=True)


def _commands(text: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.rstrip("\n").split("\n")
        count = 1
        while lines[count - 1].endswith("\\"):
            count += 1
        if here := re.search(r"<<'(\w+)'", lines[0]):
            count = lines.index(here[1]) + 1
        yield Step("\n".join(lines[:count]), "\n".join(lines[count:]), is_python=False)


class Shell:
    """A shell whose variables stay from one command to the next."""

    def __init__(self, directory: Path, platform: Platform, trino: str) -> None:
        self._directory = directory
        self._state = directory / ".state"
        self._state.touch()
        (directory / ".dcp").symlink_to(platform.directory)
        bin_directory = Path(sys.executable).parent
        self._environment = {
            **os.environ,
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            "DCP_DATA_DIR": str(platform.directory),
            "DCP_TRINO_URL": trino,
        }
        info = platform.info
        self._addresses = {
            "http://127.0.0.1:8080": info["gateway"],
            "http://127.0.0.1:8081": info["query"],
            "http://127.0.0.1:3000": info["dagster"],
            "port=8082": f"port={trino.rsplit(':', 1)[1]}",
        }

    def here(self, text: str) -> str:
        """With the addresses of this stack in place of the usual ones."""
        for usual, actual in self._addresses.items():
            text = text.replace(usual, actual)
        return text

    def run(self, step: Step) -> str:
        """What it prints; fails when it fails."""
        if step.is_python:
            code = f"exec python - <<'PROGRAM'\n{self.here(step.code)}PROGRAM\n"
            script = f"set -a; source {self._state}; {code}"
        else:
            script = (
                f"set -a -e; source {self._state}; {self.here(step.code)}\n"
                f"declare -p KEY SHOP TOKEN SCHEMA DAY BACKFILL 2>/dev/null > {self._state} || true\n"
            )
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{step.code}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def test_the_first_hour(platform: Platform, shared_trino: SharedTrino, tmp_path: Path) -> None:
    info = platform.info
    trino = shared_trino.show(info["lake"], info["kafka"], info["topic"])
    wait_for(lambda: VIEW in trino.keep(), 60, "the union in Trino")
    shell = Shell(tmp_path, platform, trino.url)
    run = 0
    for step in steps():
        if step.code.startswith(_NOT_HERE):
            continue
        prove(shell, step)
        run += 1
    assert run > 30


def prove(shell: Shell, step: Step) -> None:
    """Run a step until it prints what is shown; only what asks is run twice."""
    wanted = step._replace(shown=shell.here(step.shown))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        printed = shell.run(step)
        if wanted.matches(printed) or not wanted.shown:
            return
        again = step.only_asks and time.monotonic() < deadline
        assert again, f"{step.code}\nprinted\n{printed}\nand the page shows\n{wanted.shown}"
        time.sleep(0.5)
