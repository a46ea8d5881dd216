"""Parts of the platform that have no verb of their own, as processes.

python -m dc_platform_tests.crash.process run OWNER     a landing run under its lease, until SIGTERM
python -m dc_platform_tests.crash.process backfill DAY  silver of an ingest date
python -m dc_platform_tests.crash.process replay all    what is open in quarantine
python -m dc_platform_tests.crash.process search NAME   the search index, if it tells the truth
"""

from __future__ import annotations

import signal
import sys
from datetime import date

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.replays import days_of
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.backfill import backfill_silver
from dc_platform.landing.replay import Replay, replay_day, today
from dc_platform.orchestration.landing_run import LandingRun
from dc_platform.points import armed
from dc_platform.registry.database import migrate
from dc_platform.search.build import Builder
from dc_platform.search.index import Reading
from dc_platform.settings import Settings, settings
from dc_platform_tests.helpers.search import assert_true


class _TerminatedError(BaseException):
    """Dagster's "Terminate" interrupts the run's main thread like this."""


def _terminate(*_: object) -> None:
    raise _TerminatedError


def _search(configured: Settings) -> None:
    builder = Builder(configured)
    if directory := builder.home.current():
        assert_true(Reading(directory).moment())
    built = builder.build()
    assert built.documents == LakeTable(Lake(configured.lake), SILVER_EVENTS).snapshot().rows
    assert builder.behind().rows == 0


def main() -> None:
    """One of them."""
    what, argument = sys.argv[1:]
    configured = settings()
    if what == "backfill":
        hook = armed(configured.crash_at)
        backfill_silver(Lake(configured.lake), date.fromisoformat(argument), reached=hook)
        return
    if what == "replay":
        hook, lake = armed(configured.crash_at), Lake(configured.lake)
        tenants = today(None)
        for day in days_of(lake):
            replay_day(configured, lake, day, Replay(argument), now=tenants, reached=hook)
        return
    if what == "search":
        _search(configured)
        return
    signal.signal(signal.SIGTERM, _terminate)
    migrate(configured.registry)
    try:
        LandingRun(configured, argument, log=print, report=lambda report: None).run()
    except _TerminatedError:
        return


if __name__ == "__main__":
    main()
