"""One long landing run, as a Dagster run: it lives as long as it holds its slot's lease.

The loop itself runs in a thread; the run's main thread renews the lease each second, and passes on
the wish to stop: of Dagster (SIGTERM, "Terminate" in the UI), of a successor, or because somebody else
has the lease. A commit that has begun is always finished, under the lease. Reports to Dagster come
from a third thread: one that fails or hangs costs a report, never the lease.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from dc_platform.errors import PlatformError
from dc_platform.landing.batch import TableRows
from dc_platform.landing.lander import Ended, Lander, Totals
from dc_platform.landing.slots import Slot
from dc_platform.points import Point, armed
from dc_platform.registry.database import Database
from dc_platform.registry.leases import Leases, landing_slot
from dc_platform.registry.sources import Sources
from dc_platform.settings import Settings

_RENEW_SECONDS = 1.0
# What a hand-over waits for beside the predecessor's commit: its renewal, and this.
_ASK_SECONDS = 0.1
# A successor that is not let in within this time ends; the sensor will send another.
_PATIENCE_SECONDS = 60.0
# A run past its age ends without a successor when nothing came for so long.
_IDLE_SECONDS = 60.0
_FIRST_REPORT_SECONDS = 5.0
# How long the end of a run waits for a report that is under way.
_REPORT_PATIENCE_SECONDS = 10.0


@dataclass
class LandingReport:
    """What a run did, at the moment of a report. `lag` is in Kafka records of the slot."""

    slot: Slot
    totals: Totals
    seconds: float
    lag: int | None
    rows: TableRows | None = None
    ended: str | None = None


class LandingRun:
    """Runs the landing loop of a slot under its lease as `owner` (the Dagster run id).

    Without a slot it takes the first that nobody lands, else the one that was held longest.
    """

    def __init__(
        self,
        settings: Settings,
        owner: str,
        *,
        slot: int | None = None,
        log: Callable[[str], None],
        report: Callable[[LandingReport], None],
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._log = log
        self._report = report
        database = Database(settings.registry)
        self._sources = Sources(database)
        self._leases = Leases(database, stale_seconds=settings.lease_stale_seconds)
        number = self._choose() if slot is None else slot
        self.slot = Slot(number, settings.landing_slots)
        self._lease = landing_slot(number)
        self._stop = threading.Event()
        self._ended: Ended | None = None
        self._error: BaseException | None = None
        self._last_batch = time.monotonic()

    def run(self) -> LandingReport:
        """Land until handed over, stopped, idle or fenced. Raises what stopped the loop."""
        # Built before the lease is asked for: a hand-over then costs no start-up.
        reached = armed(self._settings.crash_at)
        lander = Lander(
            self._settings,
            sources=self._sources,
            owner=self._owner,
            slot=self.slot,
            reached=reached,
        )
        epoch = self._acquire()
        if epoch is None:
            lander.close()
            ended = "another run holds the lease"
            return LandingReport(self.slot, Totals(), 0.0, None, ended=ended)
        reached(Point.LEASE_TAKEN)
        # Where the predecessor stopped is known only now.
        lander.refresh()
        begun = time.monotonic()
        thread = threading.Thread(target=self._loop, args=(lander, begun), name="landing")
        reports = threading.Thread(
            target=self._report_all, args=(lander, begun), name="landing-reports", daemon=True
        )
        thread.start()
        reports.start()
        why: str | None = None
        try:
            why = self._watch(thread, epoch)
        finally:
            # Reached by an interrupt too: the commit under way is finished, then the lease given up.
            self._stop.set()
            self._finish(thread, epoch)
            reached(Point.BEFORE_RELEASE)
            self._leases.release(self._lease, self._owner, epoch)
            reached(Point.LEASE_RELEASED)
        if self._error is not None:
            raise self._error
        ended = why or (self._ended.value if self._ended else "stopped")
        self._log(f"landing ended: {ended}")
        reports.join(timeout=_REPORT_PATIENCE_SECONDS)
        return replace(_report_of(lander, begun), ended=ended)

    def _choose(self) -> int:
        manned = {n: lease for n, lease in self._leases.landing().items() if lease.alive}
        slots = range(self._settings.landing_slots)
        free = [number for number in slots if number not in manned]
        return free[0] if free else max(slots, key=lambda number: manned[number].held_seconds)

    def _acquire(self) -> int | None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            epoch = self._leases.acquire(self._lease, self._owner)
            if epoch is not None:
                self._log(f"holding the lease of {self.slot}, epoch {epoch}")
                return epoch
            time.sleep(_ASK_SECONDS)
        return None

    def _loop(self, lander: Lander, begun: float) -> None:
        age = self._settings.landing_run_minutes * 60

        def old_and_idle() -> bool:
            now = time.monotonic()
            return now - begun > age and now - self._last_batch > _IDLE_SECONDS

        def landed(_totals: Totals) -> None:
            self._last_batch = time.monotonic()

        try:
            self._ended = lander.run(self._stop, idle_after=old_and_idle, progress=landed)
        except BaseException as error:
            self._error = error

    def _watch(self, thread: threading.Thread, epoch: int) -> str | None:
        """Renew and listen until the loop ends or has to; gives the reason for that."""
        while thread.is_alive():
            thread.join(timeout=_RENEW_SECONDS)
            try:
                lease = self._leases.renew(self._lease, self._owner, epoch)
            except PlatformError as error:
                # The registry is away: the lease grows stale, and Delta's fence does its work.
                self._log(str(error))
                continue
            if lease is None:
                return "another run took the lease"
            if lease.wanted_by is not None:
                return f"handed over to run {lease.wanted_by}"
        return None

    def _finish(self, thread: threading.Thread, epoch: int) -> None:
        """Wait for the commit under way; a long one must not look dead to a successor."""
        while thread.is_alive():
            thread.join(timeout=_RENEW_SECONDS)
            with suppress(PlatformError):
                self._leases.renew(self._lease, self._owner, epoch)

    def _report_all(self, lander: Lander, begun: float) -> None:
        """Report now and then, when something was committed since; until the run is to stop."""
        period = self._settings.landing_report_seconds
        reported = -1
        wait = min(_FIRST_REPORT_SECONDS, period)
        while not self._stop.wait(wait):
            wait = period
            if lander.totals.commits == reported:
                wait = min(_RENEW_SECONDS, period)
                continue
            try:
                report = _report_of(lander, begun)
                self._report(report)
                reported = report.totals.commits
            except Exception as error:
                # Dagster's database is locked, say. Landing does not depend on it.
                self._log(f"a report failed: {error!r}")


def _report_of(lander: Lander, begun: float) -> LandingReport:
    seconds = time.monotonic() - begun
    # Copies: the loop goes on counting in its own.
    now = lander.totals
    totals = replace(now, days=set(now.days), offsets=dict(now.offsets))
    return LandingReport(lander.slot, totals, seconds, _lag(lander), lander.rows())


def _lag(lander: Lander) -> int | None:
    """What a report says of Kafka; a broker that does not answer is asked for half a minute."""
    try:
        return sum(lander.lag().values())
    except PlatformError:
        return None
