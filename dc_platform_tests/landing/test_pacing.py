"""When a batch is closed, on a virtual clock: idle, trickle, flood, commits slower than the target."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.landing.pacing import HELD_BYTES, HELD_ROWS, Pacing

EVENT_BYTES = 320
MB = 2**20
# Like the reader's poll.
STEP = 0.02


@dataclass
class Landing:
    """A reader and a committer at the same time. Commits take `fixed` + rows * `per_row` seconds, and
    slow the reader by half while they last, as on a machine that is busy with both."""

    freshness: float
    fixed: float = 0.05
    per_row: float = 1e-6
    read_rate: float = 300_000.0
    now: float = 0.0
    waiting: float = 0.0
    held: float = 0.0
    since: float = 0.0
    queued: tuple[float, float] | None = None
    under_way: tuple[float, float, float] | None = None
    commits: list[tuple[float, float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pacing = Pacing(self.freshness, 32 * MB, clock=lambda: self.now)

    def run(self, seconds: float, rate: float, every: float = STEP) -> None:
        """`rate` events a second arrive, in one go each `every` seconds."""
        end, arrival = self.now + seconds, self.now
        while self.now < end:
            if self.now >= arrival:
                self.waiting += rate * every
                arrival += every
            self.step()

    def step(self) -> None:
        self._commit()
        full = self.pacing.full(int(self.held), int(self.held) * EVENT_BYTES)
        if full and self.queued is None:
            self._close()
        speed = self.read_rate / (2 if self.under_way else 1)
        taken = 0.0 if full and self.queued else min(self.waiting, speed * STEP)
        if taken and not self.held:
            self.since = self.now
        self.waiting -= taken
        self.held += taken
        age = self.now - self.since if self.held else None
        if self.held and self.queued is None and self.pacing.due(age, idle=not taken):
            self._close()
        self.now += STEP

    def _close(self) -> None:
        self.queued = (self.held, self.since)
        self.held = 0.0
        self.pacing.closed()

    def _commit(self) -> None:
        if self.under_way and self.now >= self.under_way[0]:
            done, rows, since = self.under_way
            took = self.fixed + rows * self.per_row
            self.pacing.committed(took, int(rows) * EVENT_BYTES, int(rows) * 80)
            self.commits.append((done, rows, done - since))
            self.under_way = None
        if self.under_way is None and self.queued:
            rows, since = self.queued
            self.under_way = (self.now + self.fixed + rows * self.per_row, rows, since)
            self.queued = None
            self.pacing.committing()

    def landed(self) -> float:
        return sum(rows for _, rows, _ in self.commits)


def test_an_idle_topic_commits_at_once() -> None:
    landing = Landing(freshness=1.0)
    landing.run(20, rate=0.2, every=5.0)
    assert len(landing.commits) == 4
    assert max(delay for _, _, delay in landing.commits) <= landing.fixed + 3 * STEP


@pytest.mark.parametrize("rate", [4, 10, 100, 10_000])
@pytest.mark.parametrize("freshness", [0.5, 1.0, 10.0])
def test_a_trickle_commits_once_per_target_and_within_it(rate: float, freshness: float) -> None:
    landing = Landing(freshness)
    landing.run(40 * freshness, rate, every=max(STEP, 1 / rate))
    assert 30 <= len(landing.commits) <= 50
    # What a commit takes is known from the first ones.
    assert max(delay for _, _, delay in landing.commits[10:]) <= freshness + 5 * STEP


def test_a_flood_commits_by_size() -> None:
    landing = Landing(freshness=5.0)
    landing.run(30, rate=150_000)
    sizes = [rows for _, rows, _ in landing.commits]
    # But for the first ones.
    assert min(sizes[2:]) >= 0.9 * HELD_ROWS
    assert landing.landed() >= 150_000 * 30 - 4 * HELD_ROWS


def test_what_waited_in_kafka_for_long_is_taken_by_size() -> None:
    pacing = Pacing(1.0, 32 * MB, clock=lambda: 0.0)
    pacing.closed()
    assert pacing.due(1.0, idle=False, late=2.0)
    assert not pacing.due(9.0, idle=False, late=60.0)
    # It is not held for ever.
    assert pacing.due(10.0, idle=False, late=60.0)


@given(
    freshness=st.sampled_from([0.02, 0.1, 0.5, 1.0]),
    fixed=st.floats(0.01, 3.0),
    per_row=st.floats(0.0, 3e-6),
)
@settings(max_examples=40, deadline=None)
def test_catching_up_never_collapses(freshness: float, fixed: float, per_row: float) -> None:
    """However short the target: as fast as with batches by size alone, but for a fifth."""
    landing, by_size = Landing(freshness, fixed, per_row), Landing(1e9, fixed, per_row)
    for one in (landing, by_size):
        one.waiting = 10_000_000.0
        one.run(60, rate=0)
    assert landing.landed() >= 0.75 * by_size.landed()


@given(
    rate=st.floats(1, 100_000), freshness=st.sampled_from([0.1, 1.0]), fixed=st.floats(0.01, 1.5)
)
@settings(max_examples=40, deadline=None)
def test_a_load_that_can_be_held_is_held(rate: float, freshness: float, fixed: float) -> None:
    """Commits that take longer than the target make batches larger, not the lag."""
    landing = Landing(freshness, fixed)
    landing.run(60, rate, every=max(STEP, 1 / rate))
    delays = [delay for done, _, delay in landing.commits if done > 20]
    assert max(delays) <= max(freshness, 3 * fixed) + 0.5
    assert landing.waiting <= rate + landing.read_rate * STEP


def under_way(file_bytes: float) -> Pacing:
    """The pacing of a run whose first batches are closed."""
    pacing = Pacing(1.0, file_bytes)
    for _ in range(2):
        pacing.closed()
    return pacing


def test_the_first_batches_of_a_run_are_small() -> None:
    """There is nothing to commit yet while the first one is read."""
    pacing = Pacing(1.0, 10_000 * MB)
    sizes = []
    for _ in range(4):
        sizes.append(next(n for n in range(0, HELD_ROWS + 1, 500) if pacing.full(n, 1)))
        pacing.closed()
    assert sizes == [HELD_ROWS // 4, HELD_ROWS // 2, HELD_ROWS, HELD_ROWS]
    assert Pacing(1.0, 8 * MB).full(1, 8 * MB)


def test_a_commit_that_made_no_file_says_nothing_about_files() -> None:
    pacing = under_way(8 * MB)
    pacing.committed(0.1, 100 * MB, 0)
    assert pacing.full(1, 32 * MB)
    assert not pacing.full(1, 31 * MB)


def test_files_get_the_size_that_was_asked_for() -> None:
    """Whatever share of Kafka's bytes ends up in them; within what memory allows."""
    pacing = under_way(4 * MB)
    for _ in range(30):
        pacing.committed(0.1, 40 * MB, 20 * MB)
    assert pacing.full(1, 8 * MB + MB // 10)
    assert not pacing.full(1, 8 * MB - MB // 10)
    # The footers of tiny files are not what a large one is made of.
    pacing.committed(0.1, 300, 9000)
    assert not pacing.full(1, 8 * MB - MB // 10)
    huge = under_way(10_000 * MB)
    assert huge.full(HELD_ROWS, 1)
    assert huge.full(1, HELD_BYTES)


def test_a_batch_grows_while_the_one_before_is_committed() -> None:
    pacing = Pacing(1.0, 32 * MB, clock=lambda: 100.0)
    assert pacing.due(2.0, idle=False)
    pacing.committing()
    assert not pacing.due(2.0, idle=False)
    assert not pacing.due(2.0, idle=True)
    assert pacing.full(HELD_ROWS, 1)
    pacing.committed(3.0, 100, 100)
    assert pacing.due(2.0, idle=False)
