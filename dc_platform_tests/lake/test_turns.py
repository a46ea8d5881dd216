"""Turns: one writer at a time, and nobody waits for one that never gives its turn up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake import turns
from dc_platform.lake.store import Lake
from dc_platform.lake.turns import Turns

HOLD = """
import sys, time
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.turns import Turns
with Turns(Lake(sys.argv[1]), SILVER_EVENTS).taken():
    print("mine", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    made.ensure(SILVER_EVENTS)
    return made


def test_one_at_a_time(lake: Lake) -> None:
    inside, most = 0, []

    def write() -> None:
        nonlocal inside
        own = Turns(lake, SILVER_EVENTS)
        for _ in range(20):
            with own.taken() as has:
                assert has
                inside += 1
                most.append(inside)
                inside -= 1

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) == 80
    assert max(most) == 1


def test_a_frozen_writer_is_not_waited_for_twice_and_a_dead_one_not_at_all(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_PATIENCE_SECONDS", 0.2)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, lake.uri], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == "mine\n"
        os.kill(other.pid, signal.SIGSTOP)
        own = Turns(lake, SILVER_EVENTS)
        with own.taken() as has:
            assert not has
        # It does not even ask now.
        monkeypatch.setattr(own, "_lock", None)
        with own.taken() as has:
            assert not has
    finally:
        other.kill()
        other.communicate()
    with Turns(lake, SILVER_EVENTS).taken() as has:
        assert has


def test_an_error_within_gives_the_turn_up(lake: Lake) -> None:
    own = Turns(lake, SILVER_EVENTS)
    with pytest.raises(ValueError), own.taken():
        raise ValueError
    with Turns(lake, SILVER_EVENTS).taken() as has:
        assert has
