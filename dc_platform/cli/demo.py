"""`dcp demo`: the stack with real events, for a first look. `make run` is this."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from dc_platform.cli.options import DataDir, settings_of

if TYPE_CHECKING:
    from dc_platform.demo.feed import Feed
    from dc_platform.stack.control import Options
    from dc_platform.stack.hints import Caller
    from dc_platform.stack.supervisor import Supervisor

_NOTE_SECONDS = 10.0


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(demo)


def demo(
    data_dir: DataDir = None,
    rate: Annotated[int, typer.Option(help="Flights that are replayed per second.")] = 2_000,
) -> None:
    """Start the stack and bring events through it: flights of 2001, and this host's telemetry."""
    from dc_platform.demo.feed import Feed
    from dc_platform.stack import control

    directory = settings_of(data_dir).data_dir.absolute()
    # A first look should not fail on a taken port: another is taken in its place, and shown.
    options = control.Options(directory, auto_ports=True, usual_ports=True)
    control.require_ports(options)
    control.fetch(with_trino=False)
    feed = Feed(directory, per_second=rate)
    try:
        _supervise(options, feed)
    finally:
        feed.stop()


def _supervise(options: Options, feed: Feed) -> None:
    from rich.console import Console

    from dc_platform.cli.dashboard import signed_in
    from dc_platform.logs import configure_logging
    from dc_platform.stack import launch, screen
    from dc_platform.stack.hints import Caller

    console, caller = Console(), Caller.here()
    if not console.is_terminal:
        configure_logging("INFO")
        launch.supervise(options, _Notes(feed, caller))
        return
    configure_logging("INFO", options.directory.log("supervisor"))
    with screen.Screen(console, caller, signed_in) as shown:

        def show(supervisor: Supervisor) -> None:
            _start_when_ready(feed, supervisor)
            shown.show(supervisor, _what_to_do(supervisor, feed, caller))

        launch.supervise(options, show)


def _start_when_ready(feed: Feed, supervisor: Supervisor) -> None:
    if supervisor.record.ready and not feed.running:
        feed.start(str(supervisor.record.addresses["gateway"]))


def _what_to_do(supervisor: Supervisor, feed: Feed, caller: Caller) -> list[str]:
    if not feed.running:
        return ["", "Starting; events follow as soon as all parts are ready."]
    query = "select source_id, event_type, count(*) from events group by all order by all"
    try_this = caller.dcp(supervisor.directory.path, f'sql "{query}"')
    return ["", *feed.lines(), "", f"Try        {try_this}", "End        Ctrl-C"]


class _Notes:
    """Without a terminal: where to look, once, and then how far it is, now and then."""

    def __init__(self, feed: Feed, caller: Caller) -> None:
        self._feed = feed
        self._caller = caller
        self._told = False
        self._next = 0.0

    def __call__(self, supervisor: Supervisor) -> None:
        _start_when_ready(self._feed, supervisor)
        if not self._feed.running:
            return
        if not self._told:
            self._told = True
            for line in self._caller.hints(supervisor.record, supervisor.directory.path):
                typer.echo(line)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _NOTE_SECONDS
            typer.echo("; ".join(" ".join(line.split()) for line in self._feed.lines()))
