"""`dcp report …`: saved reports. All but `run` work on the registry, also while the stack is down."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of
from dc_platform.cli.sql import Format, ask_serving, print_parts, wire_of
from dc_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dc_platform.contracts.reports import Report
    from dc_platform.registry.reports import Reports, SavedReport

group = typer.Typer(no_args_is_help=True, help="Saved reports.")
_Body = Annotated[
    str,
    typer.Argument(
        help="A SELECT, or @FILE: a .sql file, or a .json file with a query of the API.",
        metavar="SQL|@FILE",
    ),
]
_Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--parameter",
        help="NAME, NAME:TYPE or NAME:TYPE=DEFAULT (TEXT, NUMBER, BOOLEAN, TIMESTAMP); repeat it.",
    ),
]
_Description = Annotated[str, typer.Option(help="What it shows.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="report")


@group.command()
def create(
    name: str,
    body: _Body,
    parameter: _Parameters = None,
    description: _Description = "",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Save a report."""
    from dc_platform.registry.reports import ReportExistsError

    report = _report(name, body, parameter or [], description)
    with _reports(data_dir) as reports:
        try:
            made = reports.create(report, by="cli")
        except ReportExistsError:
            raise ConfigurationError(f"there is a report {name}; dcp report change …") from None
    _print(made, as_json)


@group.command()
def change(
    name: str,
    body: _Body,
    parameter: _Parameters = None,
    description: _Description = "",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Give a report another definition."""
    report = _report(name, body, parameter or [], description)
    with _reports(data_dir) as reports:
        _print(_found(reports.change(report, by="cli"), name), as_json)


@group.command("list")
def list_(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show all reports."""
    with _reports(data_dir) as reports:
        found = reports.list()
    if as_json:
        typer.echo(json.dumps([saved.shown() for saved in found], indent=2))
        return
    for saved in found:
        _print(saved, as_json)


@group.command()
def show(name: str, data_dir: DataDir = None) -> None:
    """One report as JSON."""
    with _reports(data_dir) as reports:
        typer.echo(json.dumps(_found(reports.get(name), name).shown(), indent=2))


@group.command()
def delete(name: str, data_dir: DataDir = None) -> None:
    """Delete a report."""
    with _reports(data_dir) as reports:
        if not reports.delete(name):
            _found(None, name)
    typer.echo(f"report {name} is deleted")


@group.command()
def run(
    name: str,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE of a parameter; repeat it.")
    ] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Version of silver, or time.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How rows are printed.")] = (
        Format.TABLE
    ),
    data_dir: DataDir = None,
) -> None:
    """Run a report on the serving process."""
    from urllib.parse import quote

    from dc_platform.cli.client import stack_info

    directory = settings_of(data_dir).data_dir
    values: dict[str, Any] = dict(_pair(text) for text in set_ or [])
    values["format"] = wire_of(format_)
    if as_of is not None:
        values["asOf"] = as_of
    path = f"/reports/{quote(name, safe='')}/run"
    url = stack_info(directory)["query"]
    print_parts(ask_serving(directory, url, "GET", path, format_, params=values))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--set takes NAME=VALUE, not {text!r}")
    return name, value


def _report(name: str, body: str, parameters: list[str], description: str) -> Report:
    from dc_platform.contracts.reports import Report
    from dc_platform.serving.guard import Guard, RefusedError

    try:
        defined = dict(map(_parameter, parameters))
        sql, query = body, None
        if body.startswith("@"):
            file = Path(body[1:])
            sql = file.read_text()
            query = json.loads(sql) if file.suffix == ".json" else None
        if query is not None:
            return Report(name, None, query, defined, description)
        report = Report(name, sql, None, defined, description)
        report.check_named(Guard().check(sql).parameters)
    except (RefusedError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    return report


def _parameter(text: str) -> tuple[str, Any]:
    from dc_platform.contracts.reports import Parameter, ParameterType

    left, equals, default = text.partition("=")
    name, _, kind = left.partition(":")
    return name, Parameter(ParameterType(kind.upper() or "TEXT"), default if equals else None)


def _found(saved: SavedReport | None, name: str) -> SavedReport:
    if saved is None:
        raise ConfigurationError(f"there is no report {name}; dcp report list shows all")
    return saved


def _print(saved: SavedReport, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(saved.shown()))
        return
    names = ", ".join(saved.report.parameters)
    typer.echo(f"{saved.report.name}  ({names})  {saved.report.description}".rstrip())


@contextmanager
def _reports(data_dir: Path | None) -> Iterator[Reports]:
    from dc_platform.registry.database import opened
    from dc_platform.registry.reports import Reports

    with opened(settings_of(data_dir).registry) as database:
        yield Reports(database)
