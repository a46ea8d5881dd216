"""Landing is behind through the pauses of its reader, too."""

from __future__ import annotations

from dc_platform.landing.lateness import Lateness


def test_behind_until_a_batch_is_in_time_or_none_came_for_a_while() -> None:
    now = [1000.0]
    lateness = Lateness(lambda: now[0], lambda: now[0])
    assert lateness.behind
    now[0] += 5
    assert not lateness.behind
    lateness.landed(round((now[0] - 60) * 1000))
    # The reader gives nothing for a while, or a batch without records.
    for _ in range(4):
        now[0] += 1
        lateness.landed(None)
        assert lateness.behind
    lateness.landed(round((now[0] - 30) * 1000))
    now[0] += 4
    assert lateness.behind
    now[0] += 2
    assert not lateness.behind
    lateness.landed(round((now[0] - 30) * 1000))
    assert lateness.behind
    lateness.landed(round((now[0] - 1) * 1000))
    assert not lateness.behind
