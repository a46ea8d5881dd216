"""One long landing run, as a Dagster run: it lives as long as it holds its slot's lease.

The loop itself runs in a thread; the run's main thread renews the lease each second, reports to
Dagster now and then, and passes on the wish to stop: of Dagster (SIGTERM, "Terminate" in the UI), of
a successor, or because somebody else has the lease. A commit that has begun is always finished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from dc_platform.errors import PlatformError
from dc_platform.landing.commits import TableRows
from dc_platform.landing.lander import Ended, Lander, Totals
from dc_platform.registry.database import Database
from dc_platform.registry.leases import Leases
from dc_platform.registry.sources import Sources
from dc_platform.settings import Settings

SLOT = "landing-0"
_RENEW_SECONDS = 1.0
_ASK_SECONDS = 0.5
# A successor that is not let in within this time ends; the sensor will send another.
_PATIENCE_SECONDS = 60.0
# A run past its age ends without a successor when nothing came for so long.
_IDLE_SECONDS = 60.0


@dataclass
class LandingReport:
    """What a run did, at the moment of a report. `lag` is in Kafka records."""

    totals: Totals
    seconds: float
    lag: int | None
    rows: TableRows | None = None
    ended: str | None = None


class LandingRun:
    """Runs the landing loop under the lease of `SLOT` as `owner` (the Dagster run id)."""

    def __init__(
        self,
        settings: Settings,
        owner: str,
        *,
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
        self._stop = threading.Event()
        self._ended: Ended | None = None
        self._error: BaseException | None = None
        self._last_batch = time.monotonic()

    def run(self) -> LandingReport:
        """Land until handed over, stopped, idle or fenced. Raises what stopped the loop."""
        # Built before the lease is asked for: a hand-over then costs no start-up.
        lander = Lander(self._settings, sources=self._sources, owner=self._owner)
        epoch = self._acquire()
        if epoch is None:
            lander.close()
            return LandingReport(Totals(), 0.0, None, ended="another run holds the lease")
        # Where the predecessor stopped is known only now.
        lander.refresh()
        begun = time.monotonic()
        thread = threading.Thread(target=self._loop, args=(lander, begun), name="landing")
        thread.start()
        why: str | None = None
        try:
            why = self._watch(lander, thread, epoch, begun)
        finally:
            # Reached by an interrupt too: the commit under way is finished, then the lease given up.
            self._stop.set()
            thread.join()
            self._leases.release(SLOT, self._owner, epoch)
        if self._error is not None:
            raise self._error
        ended = why or (self._ended.value if self._ended else "stopped")
        self._log(f"landing ended: {ended}")
        seconds = time.monotonic() - begun
        return LandingReport(lander.totals, seconds, _lag(lander), lander.rows(), ended)

    def _acquire(self) -> int | None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            epoch = self._leases.acquire(SLOT, self._owner)
            if epoch is not None:
                self._log(f"holding the lease of {SLOT}, epoch {epoch}")
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

    def _watch(
        self, lander: Lander, thread: threading.Thread, epoch: int, begun: float
    ) -> str | None:
        """Renew, report and listen until the loop ends or has to; gives the reason for that."""
        next_report = begun + min(5.0, self._settings.landing_report_seconds)
        reported = -1
        while thread.is_alive():
            thread.join(timeout=_RENEW_SECONDS)
            try:
                lease = self._leases.renew(SLOT, self._owner, epoch)
            except PlatformError as error:
                # The registry is away: the lease grows stale, and Delta's fence does its work.
                self._log(str(error))
                continue
            if lease is None:
                return "another run took the lease"
            if lease.wanted_by is not None:
                return f"handed over to run {lease.wanted_by}"
            if time.monotonic() >= next_report and lander.totals.commits != reported:
                reported = lander.totals.commits
                next_report = time.monotonic() + self._settings.landing_report_seconds
                totals = copy(lander.totals)
                seconds = time.monotonic() - begun
                self._report(LandingReport(totals, seconds, _lag(lander), lander.rows()))
        return None


def _lag(lander: Lander) -> int | None:
    try:
        return sum(lander.lag().values())
    except PlatformError:
        return None
