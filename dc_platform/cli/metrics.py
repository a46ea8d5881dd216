"""`dcp metric …`: what is measured. Works on the registry, also while the stack is down."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of
from dc_platform.contracts.metrics import AggregationType, DefinedMetric, Definition, MetricError
from dc_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dc_platform.registry.metrics import Metrics

group = typer.Typer(no_args_is_help=True, help="What is measured.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="metric")


@group.command()
def create(
    name: str,
    type_: Annotated[AggregationType, typer.Option("--type", help="What becomes of the values.")],
    field: Annotated[str | None, typer.Option(help="Payload path of the values.")] = None,
    event_type: Annotated[str | None, typer.Option(help="Only events of this type.")] = None,
    dimension: Annotated[
        list[str] | None, typer.Option(help="Payload path to tell values apart by; repeat it.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Define a metric."""
    from dc_platform.registry.metrics import MetricExistsError

    try:
        definition = Definition(name, type_, field, event_type, tuple(dimension or ()))
        with _metrics(data_dir) as metrics:
            made = metrics.create(definition)
    except (MetricError, MetricExistsError) as error:
        raise ConfigurationError(str(error)) from error
    _print(made, as_json)


@group.command("list")
def list_(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show all metrics."""
    with _metrics(data_dir) as metrics:
        found = metrics.list()
    if as_json:
        typer.echo(json.dumps([metric.shown() for metric in found], indent=2))
        return
    for metric in found:
        _print(metric, as_json)


@group.command()
def show(name: str, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show one metric."""
    with _metrics(data_dir) as metrics:
        found = metrics.get(name)
    if found is None:
        raise ConfigurationError(f"there is no metric {name}; dcp metric list shows all")
    _print(found, as_json)


@group.command()
def delete(name: str, data_dir: DataDir = None) -> None:
    """Delete a metric: the events stay."""
    with _metrics(data_dir) as metrics:
        if not metrics.delete(name):
            raise ConfigurationError(f"there is no metric {name}; dcp metric list shows all")
    typer.echo(f"metric {name} is deleted")


def _print(metric: DefinedMetric, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(metric.shown()))
        return
    definition = metric.definition
    of = f" where eventType = {definition.event_type}" if definition.event_type else ""
    by = f" by {', '.join(definition.dimensions)}" if definition.dimensions else ""
    value = f"{definition.aggregation_type}({definition.field or '*'})"
    typer.echo(f"{definition.name}  {value}{of}{by}")


@contextmanager
def _metrics(data_dir: Path | None) -> Iterator[Metrics]:
    from dc_platform.registry.database import opened
    from dc_platform.registry.metrics import Metrics

    with opened(settings_of(data_dir).registry) as database:
        yield Metrics(database)
