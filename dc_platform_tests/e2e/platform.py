"""A whole stack for a test, driven as its users drive it: by `dcp`, HTTP and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx


class Source(NamedTuple):
    """A registered source."""

    source_id: str
    key: str


class Platform:
    """A stack in `directory`, started with free ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def dcp(self, *arguments: str, seconds: float = 300, check: bool = True) -> str:
        """Run a verb on this stack; gives what it printed."""
        command = [sys.executable, "-m", "dc_platform.cli.main", *arguments]
        done = subprocess.run(
            [*command, "--data-dir", str(self.directory)],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"dcp {' '.join(arguments)}: {done.stderr}\n{self.logs()}")
        return done.stdout

    def up(self, *options: str) -> None:
        """Start it, or take over what runs."""
        self.dcp("up", "--detach", "--ports", "auto", *options)

    def down(self) -> None:
        """End it."""
        self.dcp("down")

    @property
    def info(self) -> dict[str, Any]:
        """The content of stack.json."""
        content: dict[str, Any] = json.loads((self.directory / "stack.json").read_text())
        return content

    def pid(self, part: str) -> int | None:
        """Process id of a living part."""
        pid: int | None = self.info["pids"].get(part)
        return pid

    def kill(self, part: str, seconds: float = 120) -> int:
        """SIGKILL a part, waiting for it to be there first; gives its process id."""
        wait_for(lambda: self.pid(part) is not None, seconds, f"a process of {part}")
        pid = self.pid(part)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def source(self, name: str) -> Source:
        """A new source."""
        made = json.loads(self.dcp("source", "create", name, "--type", "SERVER", "--json"))
        return Source(made["sourceId"], made["apiKey"])

    def token(self, scope: str) -> str:
        """A new token."""
        made: str = json.loads(self.dcp("token", "create", "--scope", scope, "--json"))["token"]
        return made

    def rows(self, sql: str, token: str) -> list[dict[str, Any]]:
        """Rows of a SELECT over HTTP."""
        answer = httpx.post(
            f"{self.info['query']}/api/v1/sql",
            json={"sql": sql},
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def graphql(self, query: str, **variables: Any) -> Any:
        """Ask Dagster."""
        answer = httpx.post(
            f"{self.info['dagster']}/graphql",
            json={"query": query, "variables": variables},
            timeout=60,
        )
        content = answer.json()
        assert "errors" not in content, content
        return content["data"]

    def logs(self) -> str:
        """The last lines of every part's log."""
        texts = []
        for path in sorted((self.directory / "logs").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            texts.append(f"--- {path.name}\n" + "\n".join(lines))
        return "\n".join(texts)


@contextmanager
def running(directory: Path, *options: str) -> Iterator[Platform]:
    """A stack for the length of the block; ended whatever happens."""
    platform = Platform(directory)
    try:
        platform.up(*options)
        yield platform
    finally:
        platform.down()


def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`; fails after a generous time."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.2)
