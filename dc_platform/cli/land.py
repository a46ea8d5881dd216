"""`dcp land`: the landing loop without Dagster, for debugging and benchmarks."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of
from dc_platform.errors import PlatformError

if TYPE_CHECKING:
    from dc_platform.landing.lander import Ended, Totals
    from dc_platform.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(land)


def land(
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when all that Kafka has now is landed.")
    ] = False,
    slot: Annotated[
        int, typer.Option("--slot", help="Land this one of DCP_LANDING_SLOTS slots, from 0.")
    ] = 0,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Land events from DCP_KAFKA_BOOTSTRAP and DCP_TOPIC into DCP_LAKE_URI, or those of a stack.

    It takes no lease: beside a landing run of Dagster one of the two is fenced at its next commit,
    and nothing is doubled.
    """
    from dc_platform.landing.lander import Lander
    from dc_platform.landing.slots import Slot
    from dc_platform.logs import configure_logging

    configured = _settings(data_dir)
    configure_logging(configured.log_level)
    sources = None
    if configured.unknown_sources == "quarantine":
        from dc_platform.registry.database import Database, migrate
        from dc_platform.registry.sources import Sources

        migrate(configured.registry)
        sources = Sources(Database(configured.registry))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    begun = time.monotonic()
    lander = Lander(
        configured,
        sources=sources,
        owner=f"dcp-land-{os.getpid()}",
        slot=Slot(slot, configured.landing_slots),
    )
    shown = _Progress(sys.stderr.isatty())
    ended = lander.run(stop, until_caught_up=until_caught_up, progress=shown)
    shown.close()
    seconds = time.monotonic() - begun
    totals = lander.totals
    if as_json:
        print(json.dumps({**_figures(totals), "ended": ended.value, "seconds": round(seconds, 3)}))
    else:
        print(
            f"{ended.value}: {totals.received} events in {seconds:.1f} s"
            f" ({totals.received / seconds:,.0f}/s): {totals.landed} landed,"
            f" {totals.duplicates} duplicates, {totals.rejected} rejected, {totals.commits} commits"
        )
    _check(ended, until_caught_up=until_caught_up)


class NotCaughtUpError(PlatformError):
    """The loop ended before it was to."""


def _check(ended: Ended, *, until_caught_up: bool) -> None:
    from dc_platform.landing.lander import Ended

    if ended is Ended.FENCED:
        raise NotCaughtUpError(
            "another writer (the stack's landing run, or another dcp land) lands into this lake, or a"
            " restore put it back, so this one stopped; nothing is lost or doubled: end that one and"
            " run dcp land again, or leave the rest to it"
        )
    if until_caught_up and ended is not Ended.CAUGHT_UP:
        raise NotCaughtUpError(
            f"{ended.value} before all was landed: run dcp land --until-caught-up again"
        )


def _settings(data_dir: Path | None) -> Settings:
    from dc_platform.cli.client import stack_info

    if data_dir is None:
        return settings_of(None)
    info = stack_info(data_dir)
    return settings_of(
        data_dir, kafka_bootstrap=info["kafka"], topic=info["topic"], lake_uri=info["lake"]
    )


def _figures(totals: Totals) -> dict[str, int]:
    return {
        "received": totals.received,
        "landed": totals.landed,
        "duplicates": totals.duplicates,
        "rejected": totals.rejected,
        "sampled": totals.sampled,
        "commits": totals.commits,
        "bytes": totals.bytes,
        "silver_version": totals.silver_version,
    }


class _Progress:
    """One line that is rewritten, on a terminal only."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._begun = time.monotonic()

    def __call__(self, totals: Totals) -> None:
        if self._on:
            rate = totals.received / max(time.monotonic() - self._begun, 1e-3)
            print(f"\r{totals.received:,} events, {rate:,.0f}/s ", end="", file=sys.stderr)

    def close(self) -> None:
        if self._on:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
