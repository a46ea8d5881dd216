"""`dcp source …`: who may send events. Works on the registry, also while the stack is down."""

from __future__ import annotations

import json
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dc_platform.registry.sources import Source, Sources

group = typer.Typer(no_args_is_help=True, help="Who may send events.")


class Type(StrEnum):
    """Kinds of source; the same as `registry.sources.SourceType`, which takes long to import."""

    IOT_DEVICE = "IOT_DEVICE"
    SERVER = "SERVER"
    APPLICATION = "APPLICATION"
    MOBILE_APP = "MOBILE_APP"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="source")


@group.command()
def create(
    name: str,
    type_: Annotated[Type, typer.Option("--type", help="Kind of source.")] = Type.SERVER,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Create a source; its key is shown only now."""
    from dc_platform.registry.sources import SourceType

    with _sources(data_dir) as sources:
        source, key = sources.create(name, SourceType(type_.value))
    if as_json:
        typer.echo(json.dumps({"sourceId": source.source_id, "apiKey": key}))
    else:
        typer.echo(f"source {source.source_id}\nkey    {key}")


@group.command("list")
def list_(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show all sources."""
    with _sources(data_dir) as sources:
        found = sources.list()
    if as_json:
        typer.echo(json.dumps([_shown(source) for source in found], indent=2))
        return
    for source in found:
        typer.echo(f"{source.source_id}  {source.status:8}  {source.type:11}  {source.name}")


@group.command()
def delete(source_id: str, data_dir: DataDir = None) -> None:
    """Delete a source: its key dies, its events stay."""
    from dc_platform.errors import ConfigurationError

    with _sources(data_dir) as sources:
        if not sources.delete(source_id):
            raise ConfigurationError(f"there is no source {source_id}")
    typer.echo(f"source {source_id} is deleted")


@group.command()
def enable(source_id: str, data_dir: DataDir = None) -> None:
    """Take events of a source again that was disabled, or that a rule of its schema has failed."""
    from dc_platform.errors import ConfigurationError

    with _sources(data_dir) as sources:
        if sources.change(source_id, enabled=True) is None:
            raise ConfigurationError(f"there is no source {source_id}")
    typer.echo(f"source {source_id} is enabled")


@group.command()
def sample(
    source_id: str,
    rate: Annotated[
        float | None, typer.Option(help="Share of events that is kept; 1 keeps all.")
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Events per second that each gateway keeps; the rate follows from them."),
    ] = None,
    floor: Annotated[
        float | None, typer.Option(help="Least rate with --target; without it 0.001.")
    ] = None,
    event_type: Annotated[
        list[str] | None,
        typer.Option("--event-type", metavar="TYPE=RATE", help="A rate for one type."),
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Set how the events of a source are sampled (docs/quarantine.md); gateways follow in seconds."""
    from pydantic import ValidationError

    from dc_platform.errors import ConfigurationError
    from dc_platform.registry.sampling import SamplingRule

    types = dict(text.rpartition("=")[::2] for text in event_type or ())
    given = {"rate": rate, "targetEventsPerSecond": target, "floor": floor, "eventTypes": types}
    try:
        rule = SamplingRule.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(f"{where} {first['msg']}".strip()) from error
    with _sources(data_dir) as sources:
        if sources.change(source_id, sampling=rule) is None:
            raise ConfigurationError(f"there is no source {source_id}")
    typer.echo(json.dumps(rule.stored()) if as_json else f"source {source_id}: {rule.stored()}")


def _shown(source: Source) -> dict[str, object]:
    return {
        "sourceId": source.source_id,
        "name": source.name,
        "type": source.type.value,
        "status": source.status.value,
        "failure": source.failure,
        "schemas": [f"{s['schemaId']}/{s['version']}" for s in source.schemas],
        "lastSeen": source.last_seen_ms,
        "createdAt": source.created_ms,
    }


@contextmanager
def _sources(data_dir: Path | None) -> Iterator[Sources]:
    from dc_platform.registry.database import opened
    from dc_platform.registry.sources import Sources

    with opened(settings_of(data_dir).registry) as database:
        yield Sources(database)
