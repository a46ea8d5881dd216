"""The bench of commits measures its writers, not how many batches somebody prepared for them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from benchmarks.commits import Done, batches, figures
from benchmarks.writers import land_until
from dc_platform.landing.batch import Batch, Range


def test_batches_never_run_out_and_no_event_comes_twice() -> None:
    found = list(islice(batches(3, 5), 500))
    ids = [event_id for batch in found for event_id in batch.judged["event_id"].to_pylist()]
    assert len(set(ids)) == len(ids) == 2_500
    assert [batch.ranges for batch in found] == [{3: Range(n, n + 1)} for n in range(500)]
    assert [batch.judged["kafka_offset"].unique().to_pylist() for batch in found] == [
        [n] for n in range(500)
    ]
    assert len({str(batch.judged.schema) for batch in found}) == 1


def test_the_clock_ends_a_writer_and_nothing_else() -> None:
    [batch] = islice(batches(0, 1), 1)
    clock = 0.0

    def forever() -> Iterator[Batch]:
        while True:
            yield batch

    def land(_: Batch) -> None:
        nonlocal clock
        clock += 0.01

    landings, _ = land_until(lambda: clock >= 20, forever(), land)
    # The last one ended after the clock.
    assert landings in (1_999, 2_000)


def test_a_rate_is_over_the_clock_of_all() -> None:
    found = figures([Done(999, 0.1, 1_000, 0, 10.0), Done(499, 0.3, 1_000, 7, 5.0)], 10)
    assert found == {
        "writers": 2,
        "landings_per_second": 149.8,
        "slowest_writers_share": 0.5,
        "slowest_landing_seconds": 0.3,
        "tries_per_landing": 1.33,
        "cpu_ms_per_landing": 10.0,
        "given_up": 7,
    }
