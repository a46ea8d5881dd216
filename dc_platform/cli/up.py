"""`dcp up`, `dcp status`, `dcp down`: the stack on this machine."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dc_platform.cli.options import AsJson, DataDir, Extra, settings_of

if TYPE_CHECKING:
    from dc_platform.stack.control import Options
    from dc_platform.stack.record import StackDirectory, StackRecord

NOT_RUNNING = 3


class Ports(StrEnum):
    """How ports are chosen."""

    FIXED = "fixed"
    AUTO = "auto"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(up)
    app.command()(status)
    app.command()(down)


def up(
    data_dir: DataDir = None,
    ports: Annotated[
        Ports, typer.Option(help="auto: free ports, so that several stacks run side by side.")
    ] = Ports.FIXED,
    extra: Annotated[
        list[Extra] | None, typer.Option("--with", help="Start this part too.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when all parts are ready; they go on.")
    ] = False,
) -> None:
    """Start the stack: Kafka, gateway, serving, Dagster; stays until Ctrl-C, or --detach."""
    from dc_platform.stack import control

    options = control.Options(
        # Reads the settings, so that a wrong one is reported before anything is started.
        settings_of(data_dir).data_dir,
        auto_ports=ports is Ports.AUTO,
        with_trino=Extra.TRINO in (extra or ()),
    )
    control.require_ports(options)
    control.fetch(with_trino=options.with_trino)
    if detach:
        _detach(options)
    else:
        _stay(options)


def _detach(options: Options) -> None:
    from dc_platform.stack import control
    from dc_platform.stack.hints import Caller

    record = control.start_detached(options, _say)
    for line in Caller.here().hints(record, options.directory.path):
        typer.echo(line)


def _stay(options: Options) -> None:
    from rich.console import Console

    from dc_platform.cli.dashboard import signed_in
    from dc_platform.logs import configure_logging
    from dc_platform.stack import launch, screen
    from dc_platform.stack.hints import Caller

    console = Console()
    if not console.is_terminal:
        configure_logging("INFO")
        launch.supervise(options, lambda supervisor: None)
        return
    configure_logging("INFO", options.directory.log("supervisor"))
    with screen.Screen(console, Caller.here(), signed_in) as shown:
        launch.supervise(options, shown.show)


def status(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Show what runs where; exit code 3 when nothing runs."""
    from dc_platform.stack.control import running_record

    directory = _directory(data_dir)
    record = running_record(directory)
    if as_json:
        content = record.as_json() if record else {"pids": {}, "parts": {}, "ready": False}
        typer.echo(json.dumps({"running": record is not None, **content}, indent=2))
    elif record is None:
        from dc_platform.stack.hints import Caller

        start = Caller.here().dcp(directory.path, "up")
        typer.echo(f"no stack runs in {directory.path}; this starts one: {start}")
    else:
        _print(record, directory)
    if record is None:
        raise typer.Exit(NOT_RUNNING)


def _print(record: StackRecord, directory: StackDirectory) -> None:
    from rich.console import Console

    from dc_platform.stack import screen
    from dc_platform.stack.hints import Caller

    console = Console()
    caller = Caller.here()
    console.print(screen.table(screen.recorded_rows(record.parts, record.landing)))
    if record.supervisor is None:
        up = caller.dcp(directory.path, "up")
        console.print(
            f"The supervisor is gone; its parts go on. This takes them over: {up}", soft_wrap=True
        )
    for line in caller.hints(record, directory.path):
        console.print(line, soft_wrap=True)


def down(data_dir: DataDir = None) -> None:
    """End the stack, landing's last commit included; its data stay."""
    from dc_platform.stack.control import stop

    directory = _directory(data_dir)
    if directory.path.is_dir() and stop(directory, _say):
        typer.echo(f"the stack in {directory.path} has ended")
    else:
        typer.echo(f"no stack runs in {directory.path}")


def _directory(data_dir: Path | None) -> StackDirectory:
    from dc_platform.stack.record import StackDirectory

    return StackDirectory(data_dir or settings_of(None).data_dir)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
