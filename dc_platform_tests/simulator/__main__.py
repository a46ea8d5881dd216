"""`python -m dc_platform_tests.simulator`: schedules by hand."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from dc_platform_tests.simulator.world import play


def main() -> int:
    """Exit code 1 when a seed fails."""
    parser = argparse.ArgumentParser(prog="python -m dc_platform_tests.simulator")
    parser.add_argument("--seed", type=int, help="one schedule, with its trace")
    parser.add_argument("--seeds", type=int, default=100, help="so many schedules")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        report = play(chosen.seed)
        print("\n".join(report.trace))
        print(
            report if report.problems else f"seed {chosen.seed}: {report.events} events, all well"
        )
        return bool(report.problems)
    begun = time.process_time()
    failed, events = [], 0
    counts: Counter[str] = Counter()
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        report = play(seed)
        events += report.events
        counts += report.counts
        if report.problems:
            failed.append(seed)
            print(report, flush=True)
    seconds = time.process_time() - begun
    print(dict(counts.most_common()))
    print(
        f"{chosen.seeds} schedules, {events} events, {len(failed)} failed {failed[:20]},"
        f" {seconds:.0f} CPU seconds"
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
