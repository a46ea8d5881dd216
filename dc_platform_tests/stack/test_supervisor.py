"""The supervisor, seen from outside, with stand-in parts."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dc_platform.registry.database import Database
from dc_platform.registry.leases import Leases
from dc_platform.stack import control
from dc_platform.stack.processes import PART_VARIABLE, STACK_VARIABLE
from dc_platform.stack.record import StackDirectory
from dc_platform.stack.unit import wait_before_start
from dc_platform_tests.stack.harness import (
    StandInStack,
    alive,
    processes_of,
    stand_in_stack,
    wait_for,
)

pytestmark = pytest.mark.stack


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[StandInStack]:
    with stand_in_stack(tmp_path / "stack") as made:
        yield made


def test_parts_run_in_sessions_of_their_own_and_are_recorded(stack: StandInStack) -> None:
    pids = stack.started()
    assert set(pids) == {"supervisor", "store", "door", "spare"}
    for name in ("store", "door", "spare"):
        assert os.getsid(pids[name]) == pids[name]
        assert os.getpgid(pids[name]) == pids[name]
    assert stack.content()["topic"] == "t"
    assert all(part["state"] == "ready" for part in stack.content()["parts"].values())


def test_a_killed_part_is_back_on_the_same_port(stack: StandInStack) -> None:
    pids = stack.started()
    os.kill(pids["spare"], signal.SIGKILL)
    # Each look parses the file: it is never found half written.
    wait_for(lambda: stack.content()["pids"].get("spare") not in (None, pids["spare"]))
    wait_for(lambda: stack.content()["ready"])
    with socket.create_connection(("127.0.0.1", stack.ports[2]), timeout=5):
        pass
    parts = stack.content()["parts"]
    assert parts["spare"]["restarts"] == 1
    assert parts["store"]["restarts"] == 0
    assert stack.content()["pids"]["store"] == pids["store"]


def test_a_part_that_always_ends_is_tried_again_and_the_others_do_not_suffer(
    stack: StandInStack,
) -> None:
    (stack.path / "spare.crash").touch()
    stack.start()
    wait_for(lambda: stack.content().get("parts", {}).get("spare", {}).get("restarts", 0) >= 2)
    parts = stack.content()["parts"]
    assert parts["spare"]["note"] == "ended with exit code 3"
    assert parts["spare"]["pid"] is None
    assert "spare" not in stack.content()["pids"]
    wait_for(lambda: stack.content()["parts"]["door"]["state"] == "ready")
    assert not stack.content()["ready"]
    (stack.path / "spare.crash").unlink()
    wait_for(lambda: stack.content()["ready"])


def test_the_wait_before_a_start_doubles_up_to_half_a_minute() -> None:
    assert [wait_before_start(deaths) for deaths in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_parts_wait_for_what_they_need(stack: StandInStack) -> None:
    (stack.path / "store.crash").touch()
    stack.start()
    wait_for(lambda: stack.content().get("parts", {}).get("store", {}).get("restarts", 0) >= 1)
    assert stack.content()["parts"]["door"]["state"] == "waiting"
    assert stack.content()["parts"]["door"]["pid"] is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_all_in_order_and_nothing_is_left(
    stack: StandInStack, number: signal.Signals
) -> None:
    stack.started()
    worker = stack.worker()
    assert stack.supervisor is not None
    stack.supervisor.send_signal(number)
    assert stack.supervisor.wait(timeout=60) == 0
    # The worker's commit was waited for, and what it may need was still there.
    assert stack.ended() == ["spare", "door", "worker", "store"]
    assert not alive(worker)
    assert processes_of(stack.directory) == []
    assert stack.content()["pids"] == {}
    assert control.running_record(stack.directory) is None


def test_a_second_signal_does_not_wait_any_longer(stack: StandInStack) -> None:
    (stack.path / "spare.stubborn").touch()
    stack.started()
    assert stack.supervisor is not None
    stack.supervisor.send_signal(signal.SIGINT)
    wait_for(lambda: stack.content()["parts"]["spare"]["state"] == "ending")
    with pytest.raises(subprocess.TimeoutExpired):
        stack.supervisor.wait(timeout=2)
    stack.supervisor.send_signal(signal.SIGINT)
    # Much less than the 30 s that each part may take.
    assert stack.supervisor.wait(timeout=20) == 0
    assert processes_of(stack.directory) == []


def test_parts_outlive_a_killed_supervisor_and_the_next_one_takes_them_over(
    stack: StandInStack,
) -> None:
    before = stack.started()
    stack.kill_supervisor()
    assert all(alive(before[name]) for name in ("store", "door", "spare"))
    record = control.running_record(stack.directory)
    assert record is not None
    assert record.supervisor is None
    after = stack.started()
    assert {**after, "supervisor": 0} == {**before, "supervisor": 0}
    # A part that is not its child dies: it notices all the same.
    os.kill(after["store"], signal.SIGKILL)
    wait_for(lambda: stack.content()["pids"].get("store") not in (None, before["store"]))
    wait_for(lambda: stack.content()["ready"])


def test_down_without_a_supervisor_ends_parts_and_orphans_of_killed_parts(
    stack: StandInStack,
) -> None:
    pids = stack.started()
    orphan = stack.worker()
    (stack.path / "worker.pid").unlink()
    os.kill(pids["door"], signal.SIGKILL)
    wait_for(lambda: stack.content()["pids"].get("door") not in (None, pids["door"]))
    second_worker = stack.worker()
    assert alive(orphan), "a worker outlives its killed parent"
    stack.kill_supervisor()
    assert stack.down()
    assert not alive(orphan)
    assert not alive(second_worker)
    assert processes_of(stack.directory) == []
    assert stack.ended().count("worker") == 2
    assert not stack.down(), "nothing was left to end"


def test_down_finds_parts_whose_start_was_never_recorded(stack: StandInStack) -> None:
    stack.started()
    stack.kill_supervisor()
    stack.directory.stack_file.unlink()
    assert stack.down()
    assert processes_of(stack.directory) == []


def test_down_ends_a_stack_with_its_supervisor(stack: StandInStack) -> None:
    stack.started()
    assert stack.down()
    assert stack.supervisor is not None
    assert stack.supervisor.wait(timeout=10) == 0
    assert processes_of(stack.directory) == []


def test_down_leaves_alone_what_no_supervisor_started(stack: StandInStack) -> None:
    stack.started()
    # Has the stack's environment, as a shell might that somebody debugs a part from.
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, STACK_VARIABLE: stack.directory.stack_id, PART_VARIABLE: "door"},
    )
    try:
        assert stack.down()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_copy_of_the_directory_owns_no_process(stack: StandInStack, tmp_path: Path) -> None:
    pids = stack.started()
    stack.kill_supervisor()
    shutil.copytree(stack.path, tmp_path / "copy")
    copy = StackDirectory(tmp_path / "copy")
    assert control.running_record(copy) is None
    assert not control.stop(copy, lambda text: None)
    assert alive(pids["store"])


def test_a_second_supervisor_refuses(stack: StandInStack) -> None:
    pids = stack.started()
    first = stack.supervisor
    second = stack.start()
    stack.supervisor = first
    assert second.wait(timeout=60) != 0
    assert "runs already" in (stack.path / "supervisor.err").read_text()
    assert stack.content()["pids"] == pids


def test_parts_do_not_inherit_an_ignored_sigint(stack: StandInStack) -> None:
    """Shells start background jobs so; Dagster would then take no notice of SIGTERM."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    pids = stack.started(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    for line in Path(f"/proc/{pids['store']}/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            assert not int(line.split()[1], 16) & (1 << (signal.SIGINT - 1))
            return
    pytest.fail("no SigIgn in the status")


def test_landing_is_who_holds_the_lease(stack: StandInStack) -> None:
    assert "landing" not in stack.started()
    leases = Leases(Database(f"sqlite:///{stack.path / 'registry.db'}"))
    epoch = leases.acquire("landing-0", "a run")
    assert epoch is not None
    wait_for(lambda: stack.content()["pids"].get("landing") == os.getpid())
    leases.release("landing-0", "a run", epoch)
    wait_for(lambda: "landing" not in stack.content()["pids"])
