"""Leases: one owner at any time, whoever races; a successor only by consent, by age or by death."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from dc_platform.registry import leases as leases_module
from dc_platform.registry.database import Database
from dc_platform.registry.leases import Lease, Leases, landing_slot

# What processes do does not depend on the database, but for SQLite's locks between them.
ON_SQLITE = pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)


class Clock:
    """The time, moved by hand; it may jump, as clocks do that are set."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000
        self.passed = 0.0

    def __call__(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.passed

    def pass_seconds(self, seconds: float) -> None:
        self.passed += seconds
        self.ms += int(seconds * 1000)

    def jump(self, hours: float) -> None:
        self.ms += int(hours * 3_600_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases_module, "now_ms", clock)
    monkeypatch.setattr(leases_module, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def leases(database: Database) -> Leases:
    return Leases(database)


def held_by(leases: Leases) -> str | None:
    lease = leases.current("0")
    return lease.owner if lease else None


def edit(database: Database, assignments: str) -> None:
    """Change the lease behind everybody's back."""
    with database.session() as session:
        session.execute(text(f"update leases set {assignments}"))


def test_a_free_lease_is_taken_and_a_held_one_is_asked_for(leases: Leases, clock: Clock) -> None:
    assert leases.current("0") is None
    assert leases.acquire("0", "a") == 1
    clock.pass_seconds(2)
    assert leases.acquire("0", "b") is None
    assert leases.current("0") == Lease(
        slot="0",
        owner="a",
        epoch=1,
        host=leases._host,
        pid=os.getpid(),
        held_seconds=2.0,
        renewed_seconds_ago=2.0,
        wanted_by="b",
    )
    # Slots are independent.
    assert leases.acquire("1", "b") == 1


def test_a_hand_over_by_consent(leases: Leases, clock: Clock) -> None:
    assert leases.acquire("0", "a") == 1
    assert leases.acquire("0", "b") is None
    renewed = leases.renew("0", "a", 1)
    assert renewed is not None
    assert renewed.wanted_by == "b"
    leases.release("0", "a", 1)
    assert leases.current("0") is None
    assert leases.acquire("0", "b") == 2
    lease = leases.current("0")
    assert lease is not None
    assert (lease.owner, lease.wanted_by) == ("b", None)
    assert leases.renew("0", "a", 1) is None


def test_a_successor_that_stopped_asking_is_forgotten(leases: Leases, clock: Clock) -> None:
    leases.acquire("0", "a")
    leases.acquire("0", "b")
    for _ in range(10):
        clock.pass_seconds(1)
        lease = leases.renew("0", "a", 1)
        assert lease is not None
        assert lease.wanted_by == "b"
    clock.pass_seconds(1)
    lease = leases.renew("0", "a", 1)
    assert lease is not None
    assert lease.wanted_by is None


def test_a_lease_is_stale_after_ten_seconds(leases: Leases, clock: Clock) -> None:
    leases.acquire("0", "a")
    clock.pass_seconds(9)
    assert leases.renew("0", "a", 1) is not None
    assert held_by(leases) == "a"
    clock.pass_seconds(10)
    assert held_by(leases) == "a"
    assert leases.acquire("0", "b") is None
    clock.pass_seconds(0.001)
    assert held_by(leases) is None
    assert leases.acquire("0", "b") == 2
    # The former owner learns of it at its next renewal, and can neither renew nor release.
    assert leases.renew("0", "a", 1) is None
    leases.release("0", "a", 1)
    assert held_by(leases) == "b"


def test_a_stale_lease_that_nobody_took_lives_on(leases: Leases, clock: Clock) -> None:
    leases.acquire("0", "a")
    clock.pass_seconds(60)
    assert leases.renew("0", "a", 1) is not None
    assert held_by(leases) == "a"


def test_a_dead_owner_is_named_until_another_takes_the_lease(leases: Leases, clock: Clock) -> None:
    assert leases.last("0") is None
    leases.acquire("0", "a")
    assert leases.last("0") == leases.current("0")
    clock.pass_seconds(11)
    dead = leases.last("0")
    assert dead is not None
    assert (dead.owner, dead.alive) == ("a", False)
    leases.acquire("0", "b")
    living = leases.last("0")
    assert living is not None
    assert (living.owner, living.alive) == ("b", True)
    # Who gave it up did not die.
    leases.release("0", "b", 2)
    assert leases.last("0") is None


def test_the_leases_of_all_landing_slots(leases: Leases, clock: Clock) -> None:
    assert leases.landing() == {}
    for number in (10, 2, 0, 1):
        leases.acquire(landing_slot(number), f"run-{number}")
    leases.acquire("other", "somebody")
    epoch = leases.acquire(landing_slot(3), "gone")
    assert epoch is not None
    leases.release(landing_slot(3), "gone", epoch)
    for _ in range(2):
        # An owner is dead when it was looked at for a while and did nothing.
        clock.pass_seconds(30)
        for number in (0, 10):
            leases.renew(landing_slot(number), f"run-{number}", 1)
        found = leases.landing()
    assert list(found) == [0, 1, 2, 10]
    assert {n: (lease.owner, lease.alive) for n, lease in found.items()} == {
        0: ("run-0", True),
        1: ("run-1", False),
        2: ("run-2", False),
        10: ("run-10", True),
    }


def test_the_same_owner_again_is_another_epoch(leases: Leases, clock: Clock) -> None:
    assert leases.acquire("0", "a") == 1
    assert leases.acquire("0", "a") == 2
    assert leases.renew("0", "a", 1) is None
    leases.release("0", "a", 1)
    assert leases.renew("0", "a", 2) is not None


@pytest.mark.parametrize("hours", [-24, -0.01, 0.01, 24])
def test_a_lease_that_died_with_a_wrong_clock_binds_nobody_for_long(
    leases: Leases, clock: Clock, hours: float
) -> None:
    """A host whose clock was hours ahead died: its lease must not hold for hours."""
    leases.acquire("0", "a")
    clock.jump(hours)
    assert leases.acquire("0", "b") is None
    clock.pass_seconds(2.9)
    assert leases.acquire("0", "b") is None
    clock.pass_seconds(0.1)
    assert leases.acquire("0", "b") == 2


@pytest.mark.parametrize("hours", [-24, -0.01, 0.01, 24])
def test_a_clock_that_jumps_takes_no_lease_from_an_owner_that_renews(
    leases: Leases, database: Database, clock: Clock, hours: float
) -> None:
    """Each process has a clock of its own, and the owner's is set between any two renewals."""
    successor = Leases(database)
    assert leases.acquire("0", "a") == 1
    for _ in range(20):
        clock.jump(hours)
        renewed = leases.renew("0", "a", 1)
        assert renewed is not None
        clock.jump(-hours)
        clock.pass_seconds(1)
        assert held_by(successor) == "a"
        assert successor.acquire("0", "b") is None
    # It freezes: who has looked on since then takes it at once.
    clock.pass_seconds(11)
    assert successor.acquire("0", "b") == 2


@ON_SQLITE
def test_the_lease_of_a_dead_process_of_this_host_is_free_at_once(url: str, leases: Leases) -> None:
    code = (
        "import sys; from dc_platform.registry.database import Database;"
        "from dc_platform.registry.leases import Leases;"
        f"print(Leases(Database({url!r})).acquire('0', 'a'), flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"1\n"
        assert leases.acquire("0", "b") is None
    finally:
        child.kill()
        # It counts as dead while nobody has asked for its exit status, too.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    dead = leases.last("0")
    assert dead is not None
    assert (dead.owner, dead.alive) == ("a", False)
    assert leases.acquire("0", "b") == 2
    child.wait()
    child.stdin.close()
    child.stdout.close()


@pytest.mark.parametrize(
    ("assignments", "free"),
    [
        ("host = host", False),
        ("host = 'elsewhere'", False),
        ("host = 'elsewhere', pid = 0", False),
        # The process id was given to another process since.
        ("process_started = process_started - 5", True),
    ],
)
def test_only_processes_of_this_host_are_looked_at(
    leases: Leases, database: Database, assignments: str, free: bool
) -> None:
    leases.acquire("0", "a")
    edit(database, assignments)
    assert (leases.acquire("0", "b") == 2) is free


def test_a_long_wait_for_the_database_steals_no_lease(
    leases: Leases, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While b waits for the lock, a renews: to b's watch of before, a's renewal is in the future."""
    epoch = leases.acquire("0", "a")
    assert epoch == 1

    class Slow(Database):
        @contextmanager
        def session(self) -> Iterator[object]:  # type: ignore[override]
            clock.pass_seconds(12)
            leases.renew("0", "a", 1)
            with super().session() as session:
                yield session

    slow = Slow(database.url)
    assert Leases(slow).acquire("0", "b") is None
    assert held_by(leases) == "a"
    slow.close()


def race(count: int, attempt: Callable[[int], int | None]) -> list[int | None]:
    results: list[int | None] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        results[number] = attempt(number)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("before", ["never held", "released", "stale"])
def test_of_many_threads_one_wins(
    url: str, database: Database, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(database)
    for round_ in range(5):
        slot = f"slot-{round_}"
        if before != "never held":
            leases.acquire(slot, "former")
        if before == "released":
            leases.release(slot, "former", 1)
        if before == "stale":
            edit(database, "renewed_ms = renewed_ms - 10001")
        ones = [Database(url) for _ in range(6)]
        rivals = [Leases(one) for one in ones]
        try:
            # A stale one is taken by whoever has looked on for a while.
            for now in (0.0, 4.0):
                monkeypatch.setattr(leases_module, "monotonic", lambda now=now: now)
                if now == 0.0:
                    for rival in rivals:
                        rival.last(slot)
            won = race(6, lambda n, rivals=rivals, slot=slot: rivals[n].acquire(slot, f"o{n}"))
        finally:
            for one in ones:
                one.close()
        (winner,) = [n for n, epoch in enumerate(won) if epoch is not None]
        assert won[winner] == (1 if before == "never held" else 2)
        assert leases.renew(slot, f"o{winner}", won[winner] or 0) is not None


COMPETE = """
import sys, time
from dc_platform.registry.database import Database
from dc_platform.registry.leases import Leases
url, me = sys.argv[1:]
leases, held = Leases(Database(url)), 0
while held < 10:
    epoch = leases.acquire("0", me)
    if epoch is None:
        time.sleep(0.005)
        continue
    lease = leases.renew("0", me, epoch)
    leases.release("0", me, epoch)
    print(epoch, lease.owner if lease else "lost")
    held += 1
"""


@ON_SQLITE
def test_of_many_processes_each_epoch_has_one_owner(url: str) -> None:
    owners = ["a", "b"]
    processes = [
        subprocess.Popen([sys.executable, "-c", COMPETE, url, owner], stdout=subprocess.PIPE)
        for owner in owners
    ]
    held = {}
    for owner, process in zip(owners, processes, strict=True):
        for line in process.communicate(timeout=120)[0].splitlines():
            epoch, seen = line.decode().split()
            assert seen == owner
            held[int(epoch)] = owner
    assert sorted(held) == list(range(1, 21))
