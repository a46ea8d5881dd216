"""Writers side by side, each a process, until one clock ends for all: for the benches of commits."""

from __future__ import annotations

import argparse
import multiprocessing as mp
import time
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

_READY_SECONDS = 60.0
# Beyond the clock, for what was begun within it.
_LAST_SECONDS = 120.0


class Clock(NamedTuple):
    """One clock for all writers; `end` is of the monotonic clock, which all processes share."""

    together: Barrier
    end: Synchronized[float]

    def start(self) -> None:
        """Say that this writer is ready, and wait until all are, and the clock was set."""
        self.together.wait()
        self.together.wait()

    def ended(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.end.value


def side_by_side(
    work: Callable[..., T], each: Sequence[tuple[Any, ...]], seconds: float
) -> list[T]:
    """`work(*arguments, clock)` for the arguments of each writer, in processes; what they give."""
    context = mp.get_context("spawn")
    clock = Clock(context.Barrier(len(each) + 1), context.Value("d", 0.0))
    results: mp.Queue[T] = context.Queue()
    started = [
        context.Process(target=_run, args=(work, arguments, clock, results)) for arguments in each
    ]
    for process in started:
        process.start()
    # All are ready; then the clock is set, and all begin.
    clock.together.wait(_READY_SECONDS)
    clock.end.value = time.monotonic() + seconds
    clock.together.wait(_READY_SECONDS)
    done = [results.get(timeout=seconds + _LAST_SECONDS) for _ in started]
    for process in started:
        process.join()
    return done


def _run(
    work: Callable[..., T], arguments: tuple[Any, ...], clock: Clock, results: mp.Queue[T]
) -> None:
    results.put(work(*arguments, clock))


def land_until(
    ended: Callable[[], bool], ready: Iterable[T], land: Callable[[T], None]
) -> tuple[int, float]:
    """Land until the clock has ended: how many were landed before, and the seconds of the slowest."""
    landings, slowest = 0, 0.0
    for batch in ready:
        begun = time.monotonic()
        land(batch)
        slowest = max(slowest, time.monotonic() - begun)
        if ended():
            break
        landings += 1
    return landings, slowest


def share_of_slowest(counts: Sequence[int]) -> float:
    """What the slowest writer did, as a share of what the fastest one did."""
    return round(min(counts) / max(1, *counts), 2)


def options(module: str, about: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """`writers`, `events` of a batch, and `seconds`, as both benches take them."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=about)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--events", type=int, default=200, help="events of a batch")
    parser.add_argument("--seconds", type=float, default=20.0)
    return parser.parse_args(arguments)
