"""Processes: no descriptor inherited, known by id and start time, ended by group and environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dc_platform import priority
from dc_platform.stack import processes
from dc_platform.stack.processes import PART_VARIABLE, STACK_VARIABLE, Identity, Process
from dc_platform_tests.stack.harness import alive, wait_for

Start = Callable[..., Process]
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Process] = []

    def run(code: str, **environment: str) -> Process:
        process = processes.spawn(
            [sys.executable, "-c", code],
            log=tmp_path / "logs" / "part.log",
            environment={**os.environ, **environment},
            directory=tmp_path,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        processes.send(process.identity, signal.SIGKILL)
        wait_for(lambda process=process: not process.lives())


def log(tmp_path: Path) -> str:
    return (tmp_path / "logs" / "part.log").read_text()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_part_inherits_no_descriptor(start: Start, tmp_path: Path) -> None:
    inheritable, write = os.pipe()
    os.set_inheritable(write, True)
    part = start(
        "import os\n"
        "for fd in sorted(map(int, os.listdir('/proc/self/fd'))):\n"
        "    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n"
        "    except OSError: pass"
    )
    wait_for(lambda: not part.lives())
    os.close(inheritable)
    os.close(write)
    found = dict(line.split(maxsplit=1) for line in log(tmp_path).splitlines())
    assert found.pop("0") == "/dev/null"
    assert set(found.values()) == {str(tmp_path / "logs" / "part.log")}


def test_what_a_part_prints_is_appended_and_a_long_log_put_aside(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("first", "second"):
        part = start(f"print('{text}')")
        wait_for(lambda part=part: not part.lives())
    assert log(tmp_path).split() == ["first", "second"]
    monkeypatch.setattr(processes, "LOG_LIMIT_BYTES", 5)
    part = start("print('third')")
    wait_for(lambda: not part.lives())
    assert log(tmp_path).split() == ["third"]
    assert (tmp_path / "logs" / "part.log.1").read_text().split() == ["first", "second"]


def test_a_process_id_alone_is_no_identity(start: Start) -> None:
    part = start(SLEEP)
    assert processes.lives(part.identity)
    assert not processes.lives(Identity(part.pid, part.identity.started - 100))
    # Nor is a signal sent to whoever has the id now.
    processes.send(Identity(part.pid, part.identity.started - 100), signal.SIGKILL)
    time.sleep(0.2)
    assert part.lives()


def test_the_identity_of_a_process_is_the_same_for_everybody(start: Start) -> None:
    part = start(SLEEP)
    time.sleep(1.1)
    assert processes.identify(part.pid) == part.identity


def test_a_zombie_does_not_live() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = processes.identify(child.pid)
    assert identity is not None
    wait_for(lambda: not alive(child.pid))
    assert not processes.lives(identity)
    child.wait()


def test_how_a_part_ended_is_known(start: Start) -> None:
    part = start("raise SystemExit(7)")
    wait_for(lambda: not part.lives())
    assert part.exit_code == 7


def test_members_need_the_group_and_the_environment(start: Start) -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{SLEEP}'])"
    ours = start(child, **{STACK_VARIABLE: "ours", PART_VARIABLE: "door"})
    theirs = start(SLEEP, **{STACK_VARIABLE: "theirs", PART_VARIABLE: "door"})
    wait_for(lambda: len(processes.members([ours.pid], "ours")) == 2)
    assert processes.members([ours.pid], "theirs") == []
    assert processes.members([theirs.pid], "ours") == []
    assert processes.members([theirs.pid], "theirs") == [theirs.identity]
    assert processes.leaders("ours") == {ours.identity: "door"}
    for identity in processes.members([ours.pid], "ours"):
        processes.send(identity, signal.SIGKILL)


def test_memory_and_processor_of_a_part(start: Start) -> None:
    part = start(SLEEP)

    def memory() -> int:
        usage = part.usage()
        assert usage is not None
        return usage.memory

    # A process that has just begun has next to none.
    wait_for(lambda: memory() > 2**20)
    processes.send(part.identity, signal.SIGKILL)
    wait_for(lambda: not part.lives())
    assert part.usage() is None


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
def test_a_part_that_steps_back_does_so_with_all_that_it_starts(tmp_path: Path) -> None:
    part = processes.spawn(
        [sys.executable, "-c", SLEEP],
        log=tmp_path / "part.log",
        environment=os.environ,
        directory=tmp_path,
        nice=5,
    )
    try:
        here = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, part.pid) == max(here, 5)
        group = Path(f"/proc/{part.pid}/autogroup")
        assert not group.exists() or group.read_text().split()[-2:] == ["nice", "5"]
    finally:
        processes.send(part.identity, signal.SIGKILL)
        wait_for(lambda: not part.lives())


def test_sessions_that_step_back_at_once_wait_for_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def busy(_path: Path, text: str) -> int:
        tries.append(text)
        if len(tries) < 3:
            raise BlockingIOError
        return len(text)

    monkeypatch.setattr(priority, "_SESSION_SECONDS", 0)
    monkeypatch.setattr(priority.sys, "platform", "linux")
    monkeypatch.setattr(Path, "write_text", busy)
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as child:
        priority.step_back_session(child.pid, 5)
        child.kill()
    assert tries == ["5", "5", "5"]
