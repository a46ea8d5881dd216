"""The stack as its users have it: real parts, by `dcp`, HTTP and signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dc_platform.stack.record import StackDirectory
from dc_platform_tests.stack.harness import alive, end_all, processes_of, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]
SECONDS = 300
PARTS = ("kafka", "gateway", "serving", "code_server", "dagster_daemon", "dagster_webserver")


class RealStack:
    """A data directory and the verbs on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = StackDirectory(directory)

    def command(self, *arguments: str) -> list[str]:
        dcp = [sys.executable, "-m", "dc_platform.cli.main", *arguments]
        return [*dcp, "--data-dir", str(self.directory.path)]

    def dcp(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Returns only when nobody holds its output open any more."""
        return subprocess.run(
            self.command(*arguments),
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def up(self) -> None:
        done = self.dcp("up", "--ports", "auto", "--detach")
        assert done.returncode == 0, done.stderr

    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.directory.stack_file.read_text())
        return content

    def pid(self, name: str) -> int | None:
        pid: int | None = self.content()["pids"].get(name)
        return pid

    def kill(self, name: str) -> None:
        """SIGKILL a part and wait until it is back and ready."""
        pid = self.pid(name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: self.pid(name) not in (None, pid), SECONDS)
        wait_for(lambda: self.content()["parts"][name]["state"] == "ready", SECONDS)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStack]:
    """One running stack for the tests of this file, in their order."""
    made = RealStack(tmp_path_factory.mktemp("real") / "stack")
    try:
        made.up()
        yield made
    finally:
        made.dcp("down")
        end_all(made.directory)


def test_stack_json_has_what_others_rely_on(stack: RealStack) -> None:
    content = stack.content()
    assert set(PARTS) | {"supervisor"} <= content["pids"].keys()
    assert all(alive(pid) for pid in content["pids"].values())
    for name in ("gateway", "query", "dagster"):
        assert content[name].startswith("http://127.0.0.1:")
    assert (content["grpc"], content["mqtt"], content["trino"]) == (None, None, None)
    assert content["kafka"].startswith("127.0.0.1:")
    assert content["topic"] == "events-raw"
    assert content["lake"] == str(stack.directory.path / "lake")


def test_all_parts_do_their_work(stack: RealStack) -> None:
    where = stack.content()
    assert httpx.get(f"{where['gateway']}/healthz").json()["status"] == "healthy"
    assert httpx.get(f"{where['query']}/healthz").status_code == 200
    query = "{workspaceOrError{... on Workspace{locationEntries{name loadStatus}}}}"
    answer = httpx.post(f"{where['dagster']}/graphql", json={"query": query}, timeout=60).json()
    assert answer["data"]["workspaceOrError"]["locationEntries"] == [
        {"name": "dc_platform", "loadStatus": "LOADED"}
    ]
    query = "{instance{daemonHealth{allDaemonStatuses{daemonType required healthy}}}}"

    def healthy() -> bool:
        answer = httpx.post(f"{where['dagster']}/graphql", json={"query": query}, timeout=60).json()
        daemons = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
        return all(daemon["healthy"] for daemon in daemons if daemon["required"])

    wait_for(healthy, SECONDS)


def test_status(stack: RealStack) -> None:
    done = stack.dcp("status", "--json")
    assert done.returncode == 0
    content = json.loads(done.stdout)
    assert {name: part["state"] for name, part in content["parts"].items()} == dict.fromkeys(
        PARTS, "ready"
    )
    done = stack.dcp("status")
    assert done.returncode == 0
    assert all(part in done.stdout for part in PARTS)


def test_up_on_a_running_stack_says_so(stack: RealStack) -> None:
    before = stack.content()["pids"]
    done = stack.dcp("up", "--detach")
    assert (done.returncode, "runs already" in done.stderr) == (0, True)
    done = stack.dcp("up")
    assert (done.returncode, "runs already" in done.stderr) == (1, True)
    assert stack.content()["pids"] == before


@pytest.mark.parametrize("name", PARTS)
def test_a_killed_part_is_back_where_it_was(stack: RealStack, name: str) -> None:
    before = stack.content()
    stack.kill(name)
    after = stack.content()
    keys = ("kafka", "gateway", "query", "dagster")
    assert [after[key] for key in keys] == [before[key] for key in keys]
    assert after["parts"][name]["restarts"] == before["parts"][name]["restarts"] + 1


def test_a_second_stack_runs_beside_it(stack: RealStack, tmp_path: Path) -> None:
    other = RealStack(tmp_path / "other")
    try:
        other.up()
        mine, theirs = stack.content(), other.content()
        for key in ("kafka", "gateway", "query", "dagster", "lake"):
            assert mine[key] != theirs[key]
        pids = other.content()["pids"]
        assert other.dcp("down").returncode == 0
        assert not any(alive(pid) for pid in pids.values())
        assert processes_of(other.directory) == []
        assert all(alive(pid) for pid in mine["pids"].values())
    finally:
        other.dcp("down")
        end_all(other.directory)


def test_a_new_supervisor_takes_the_parts_over(stack: RealStack) -> None:
    before = stack.content()
    os.kill(before["pids"]["supervisor"], signal.SIGKILL)
    wait_for(lambda: not alive(before["pids"]["supervisor"]))
    assert all(alive(before["pids"][name]) for name in PARTS)
    stack.up()
    after = stack.content()
    assert after["pids"]["supervisor"] != before["pids"]["supervisor"]
    assert {name: after["pids"][name] for name in PARTS} == {
        name: before["pids"][name] for name in PARTS
    }
    # It restarts a part that it did not start.
    stack.kill("gateway")


def test_down_without_a_supervisor_leaves_nothing(stack: RealStack) -> None:
    supervisor = stack.pid("supervisor")
    assert supervisor is not None
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not alive(supervisor))
    assert processes_of(stack.directory) != []
    assert stack.dcp("down").returncode == 0
    assert processes_of(stack.directory) == []
    assert stack.dcp("status").returncode == 3


def test_in_the_foreground_it_ends_with_ctrl_c_on_the_ports_of_before(stack: RealStack) -> None:
    before = stack.content()
    log = stack.directory.path / "foreground.log"
    with log.open("wb") as output:
        supervisor = subprocess.Popen(stack.command("up"), stdout=output, stderr=output)
    try:
        wait_for(lambda: stack.content()["pids"].get("supervisor") == supervisor.pid, SECONDS)
        wait_for(lambda: stack.content()["ready"], SECONDS)
        after = stack.content()
        assert [after[key] for key in ("kafka", "gateway", "query", "dagster")] == [
            before[key] for key in ("kafka", "gateway", "query", "dagster")
        ]
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.wait(timeout=SECONDS) == 0
    finally:
        supervisor.kill()
        supervisor.wait()
    assert processes_of(stack.directory) == []
    assert stack.content()["pids"] == {}
    assert "gateway is ready" in log.read_text()


def test_a_part_that_cannot_start_ends_the_attempt_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "modules"
    broken.mkdir()
    (broken / "deltalake.py").write_text("raise ImportError('broken on purpose')\n")
    stack = RealStack(tmp_path / "stack")
    try:
        done = stack.dcp("up", "--ports", "auto", "--detach", PYTHONPATH=str(broken))
        assert done.returncode == 1
        assert "ImportError: broken on purpose" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ")
        assert "did not become ready" in done.stderr
        assert processes_of(stack.directory) == []
        assert stack.content()["pids"] == {}
    finally:
        end_all(stack.directory)
