"""`dcp bench flood`: a steady load for minutes, then more than the machine holds.

A whole stack is started, with landing as its Dagster run. A process of its own writes pre-encoded
blocks straight to Kafka; beside it a prober sends single events through the gateway and asks for
them. How old each event was when silver had it, and the lag, come from Kafka's append times and from
the times of silver's commits, so nothing has to be asked while the clock runs.

With `overload` it is found out how much this machine lands while Kafka is offered all that it takes;
then twice that is offered for a minute, and the seconds are counted until the lag is back.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from dc_platform.bench.flood_child import LoadProcess
from dc_platform.bench.flood_figures import Flow, Window, grows, landed_at
from dc_platform.bench.flood_lake import Backlog, audit, probes_in_silver, silver_commits
from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.probes import Probe, Prober, Probing, percentiles
from dc_platform.bench.stack import Stack, running_stack, wait_for
from dc_platform.bench.usage import Usage
from dc_platform.bench.workload import BLOCK_EVENTS
from dc_platform.lake.store import Lake

_TRICKLE = 1_000
_WARM_SECONDS = 15.0
_CAPACITY_SECONDS = 20.0
_RAMP_STEPS = 5
_NOTE_SECONDS = 30.0
_RECOVERY_SECONDS = 900.0
_NO_LIMIT = 10_000_000


def bench_flood(
    *,
    rate: int,
    minutes: float,
    probes: int,
    overload: bool,
    overload_minutes: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the bench on a stack of its own, which is removed at the end.

    Raises BenchFailedError when an acknowledged event is missing or doubled afterwards.
    """
    directory = Path(tempfile.mkdtemp(prefix="dcp-bench-"))
    try:
        with running_stack(directory, say) as stack, LoadProcess(stack, directory) as load:
            run = _Run(stack, load, rate, say)
            with Usage(lambda: stack.pids() | {"load_generator": load.pid}) as usage:
                run.steady(usage, minutes * 60, probes)
                if overload:
                    run.overload(usage, overload_minutes * 60)
            return run.result()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class _Run:
    def __init__(
        self, stack: Stack, load: LoadProcess, rate: int, say: Callable[[str], None]
    ) -> None:
        self._stack = stack
        self._load = load
        self._rate = rate
        self._say = say
        self._lake = Lake(stack.info["lake"])
        self._probes: list[Probe] = []
        self._live: dict[str, Any] = {}
        self._steady = Window(0.0, 0.0)
        self._tried: Window | None = None
        self._flooded: Window | None = None

    def steady(self, usage: Usage, seconds: float, probes: int) -> None:
        """The load that has to be held, after a while of warming up."""
        self._load.set_rate(_TRICKLE)
        self._say("waiting for the landing run")
        wait_for(lambda: "landing" in self._stack.pids(), 120, "a landing run")
        self._load.set_rate(self._rate)
        time.sleep(_WARM_SECONDS)
        # What came in while the run was starting is not what this measures.
        wait_for(
            lambda: self._stack.serving_state()["tailRows"] <= 2 * self._rate,
            _RECOVERY_SECONDS,
            f"landing to keep up with {self._rate:,} events/s: it does not",
        )
        usage.since_last("")
        with Probing(Prober(self._stack), seconds / probes) as probing:
            self._steady = self._hold(seconds, f"{self._rate:,} events/s")
        self._live |= usage.since_last("")
        self._live |= _probed("", probing)
        self._probes += probing.sent

    def overload(self, usage: Usage, seconds: float) -> None:
        """Find what the machine lands, offer twice that, and wait until the lag is back."""
        usage.since_last("")
        backlog = Backlog(self._stack.info["kafka"], self._stack.info["topic"], self._lake)
        # Under more than it holds the union may lag, too: a probe has the time that recovery has.
        prober = Prober(self._stack, _RECOVERY_SECONDS)
        with closing(backlog), Probing(prober, 1.0) as probing:
            self._load.set_rate(_NO_LIMIT)
            self._tried = self._hold(_CAPACITY_SECONDS, "all that Kafka takes")
            capacity = _landing_rate(self._lake, self._tried)
            self._say(f"landing does {capacity:,.0f} events/s")
            step = capacity / _RAMP_STEPS
            for number in range(1, _RAMP_STEPS):
                self._load.set_rate(round(capacity + number * step))
                time.sleep(2)
            self._load.set_rate(round(2 * capacity))
            self._flooded = self._hold(seconds, f"{2 * capacity:,.0f} events/s")
            self._live |= usage.since_last("overload")
            after = min(self._rate, round(capacity / 2))
            self._load.set_rate(after)
            low = max(2 * after // BLOCK_EVENTS, 8)
            self._say(f"{backlog.records():,} records wait; {after:,} events/s from now on")
            wait_for(lambda: backlog.records() <= low, _RECOVERY_SECONDS, "the lag to be back")
            self._hold(5.0, f"{after:,} events/s")
            self._live |= usage.since_last("recovery")
        self._live |= {"capacity_events_per_second": round(capacity)}
        self._live |= _probed("overload_", probing)
        self._probes += probing.sent

    def result(self) -> dict[str, Any]:
        """End the load, let all of it land, audit it, and read the figures off the logs."""
        backlog = Backlog(self._stack.info["kafka"], self._stack.info["topic"], self._lake)
        with closing(backlog):
            acks, spent = self._load.end()
            wait_for(lambda: backlog.records() == 0, _RECOVERY_SECONDS, "all to land")
        commits = silver_commits(self._lake)
        flow = Flow(acks, commits)
        found = audit(
            self._lake, acks, self._stack.source_id, [probe.event_id for probe in self._probes]
        )
        if found["lost_events"] or found["doubled_events"]:
            raise BenchFailedError(f"not every acknowledged event is in silver once: {found}")
        steady = [c for c in commits if self._steady.start <= c.at < self._steady.end]
        return {
            "rate_events_per_second": self._rate,
            "seconds": round(self._steady.seconds, 1),
            **_flow_figures(flow, self._steady, self._rate),
            **self._probe_figures(commits),
            "commits_per_minute": round(len(steady) * 60 / self._steady.seconds, 1),
            **self._live,
            **self._overload_figures(flow),
            "failed_blocks": spent["failed_blocks"],
            **found,
        }

    def _probe_figures(self, commits: Any) -> dict[str, float]:
        """From the gateway's ack of a probe to silver's commit of it, in the steady window."""
        rows = probes_in_silver(self._lake, self._stack.source_id)
        at = landed_at(rows["partition"].to_numpy(), rows["offset"].to_numpy(), commits)
        landed = dict(zip(rows["event_id"].to_pylist(), at, strict=True))
        sent = [
            p for p in self._probes if self._steady.start <= p.acknowledged_at < self._steady.end
        ]
        delays = [max(0.0, (landed[p.event_id] - p.acknowledged_at) * 1000) for p in sent]
        return percentiles("probe_delta", delays)

    def _overload_figures(self, flow: Flow) -> dict[str, Any]:
        if self._tried is None or self._flooded is None:
            return {}
        tried = flow.offered_per_second(self._tried)
        offered = flow.offered_per_second(self._flooded)
        landed = flow.landed_per_second(self._flooded)
        limit = max(flow.lag(self._steady)[1].max(), 2.0 * self._rate)
        back = flow.recovered_at(self._flooded.end, time.time(), limit)
        _, lag = flow.lag(Window(self._steady.start, back or time.time()))
        return {
            # Were no more taken than landed, the figure would be that of Kafka or of the generator.
            "capacity_offered_events_per_second": round(tried),
            "overload_offered_events_per_second": round(offered),
            "overload_landed_events_per_second": round(landed),
            "overload_factor": round(offered / max(landed, 1.0), 2),
            "overload_lag_max_events": round(lag.max()),
            "recovery_seconds": None if back is None else round(back - self._flooded.end, 1),
        }

    def _hold(self, seconds: float, what: str) -> Window:
        """Let the time pass, with a word about it now and then."""
        start = time.time()
        next_note = 0.0
        while time.time() < start + seconds:
            if time.time() >= next_note:
                next_note = time.time() + _NOTE_SECONDS
                state = self._stack.serving_state()
                complete = "complete" if state["complete"] else "not complete"
                self._say(f"{what}: {state['tailRows']:,} events in the tail, answers {complete}")
            time.sleep(max(0.0, min(1.0, start + seconds - time.time())))
        return Window(start, time.time())


def _flow_figures(flow: Flow, window: Window, rate: int) -> dict[str, Any]:
    _, lag = flow.lag(window)
    slope = flow.lag_slope(window)
    return {
        "offered_events_per_second": round(flow.offered_per_second(window)),
        "landed_events_per_second": round(flow.landed_per_second(window)),
        **percentiles("delta", list(flow.delays_ms(window))),
        "lag_mean_events": round(lag.mean()),
        "lag_max_events": round(lag.max()),
        "lag_slope_events_per_s": round(slope, 1),
        "lag_slope_records_per_s": round(flow.lag_slope(window, records=True), 3),
        "lag_grows": grows(slope, window, rate),
    }


def _probed(prefix: str, probing: Probing) -> dict[str, Any]:
    return {
        f"{prefix}probes": len(probing.sent),
        **percentiles(f"{prefix}union", [probe.delay_ms for probe in probing.sent]),
        **percentiles(f"{prefix}probe_ack", [probe.ack_ms for probe in probing.sent]),
        f"{prefix}asked_late_probes": sum(probe.asked_late for probe in probing.sent),
        f"{prefix}refused_probes": probing.prober.refused,
        f"{prefix}failed_queries": probing.prober.failed_queries,
    }


def _landing_rate(lake: Lake, window: Window) -> float:
    """Events per second between the first and the last commit of the window.

    Only blocks count; the prober's single events, one a second, do not matter here.
    """
    commits = silver_commits(lake)
    mine = [c for c in commits if window.start <= c.at < window.end]
    if len(mine) < 2:
        raise BenchFailedError(
            f"landing made {len(mine)} commits in {window.seconds:.0f} s of overload"
        )
    first, last = (_position(commits, until=c.at) for c in (mine[0], mine[-1]))
    return (last - first) * BLOCK_EVENTS / (mine[-1].at - mine[0].at)


def _position(commits: Any, *, until: float) -> int:
    """Records that had landed by then, of all partitions."""
    ends: dict[int, int] = {}
    for commit in commits:
        if commit.at <= until:
            ends.update(commit.ends)
    return sum(ends.values())
