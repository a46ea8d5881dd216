"""`dcp schema …`: what events have to look like. Works on the registry, without the stack, too."""

from __future__ import annotations

import getpass
import json
import sys
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of
from dc_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dc_platform.registry.schema_rows import SchemaVersion
    from dc_platform.registry.schemas import Schemas

group = typer.Typer(no_args_is_help=True, help="What events have to look like (docs/schemas.md).")
File = Annotated[
    Path, typer.Argument(help="JSON with fields and validations; - reads standard input.")
]


class Mode(StrEnum):
    """Compatibility; the same as `contracts.evolution.Compatibility`, which takes long to import."""

    NONE = "NONE"
    BACKWARD = "BACKWARD"
    FORWARD = "FORWARD"
    FULL = "FULL"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="schema")


@group.command()
def create(
    name: str,
    file: File,
    event_type: Annotated[
        str | None, typer.Option("--event-type", help="Judge only events of this type.")
    ] = None,
    compatibility: Annotated[
        Mode, typer.Option("--compatibility", help="What a new version may change.")
    ] = Mode.BACKWARD,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Create a schema with version 1."""
    from dc_platform.contracts.evolution import Compatibility

    with _schemas(data_dir) as schemas:
        made = schemas.create(
            name,
            _read(file),
            event_type=event_type,
            compatibility=Compatibility(compatibility.value),
            by=_who(),
        )
    _show_version(made, as_json=as_json)


@group.command("list")
def list_(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the newest version of every schema."""
    with _schemas(data_dir) as schemas:
        found = schemas.all()
    if as_json:
        typer.echo(json.dumps([schema.as_json() for schema in found], indent=2))
        return
    for schema in found:
        _show_version(schema, as_json=False)


@group.command()
def show(
    schema_id: str,
    version: Annotated[
        int | None, typer.Option("--version", help="This one; default: the newest.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Print a version as JSON."""
    with _schemas(data_dir) as schemas:
        found = _found(schemas, schema_id, version)
    typer.echo(json.dumps(found.as_json(), indent=2))


@group.command("add-version")
def add_version(
    schema_id: str, file: File, as_json: AsJson = False, data_dir: DataDir = None
) -> None:
    """Add a version, when the schema's compatibility allows it."""
    with _schemas(data_dir) as schemas:
        _found(schemas, schema_id)
        made = schemas.add_version(schema_id, _read(file), by=_who())
    assert made is not None
    _show_version(made, as_json=as_json)


@group.command()
def check(
    schema_id: str,
    file: Annotated[
        Path | None, typer.Option("--file", help="A new version: JSON; - is standard input.")
    ] = None,
    payload: Annotated[
        Path | None, typer.Option("--payload", help="A payload: JSON; - is standard input.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Try a new version, a payload, or both, and write nothing; exit code 1 when one is refused."""
    from dc_platform.registry.schemas import tried

    if file is None and payload is None:
        raise ConfigurationError("give --file, --payload, or both")
    with _schemas(data_dir) as schemas:
        newest = _found(schemas, schema_id)
    answer = tried(
        newest,
        content=None if file is None else _read(file),
        payload=None if payload is None else _read(payload),
    )
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        for name, value in answer.items():
            shown = "; ".join(value) if isinstance(value, list) else value
            typer.echo(f"{name:10}  {shown}")
    if answer.get("compatible") is False or answer.get("verdict") == "rejected":
        raise typer.Exit(1)


@group.command()
def bind(
    source_id: str,
    schema_id: Annotated[str, typer.Argument(help="Which schema; none ends the binding.")],
    event_type: Annotated[
        str | None, typer.Option("--event-type", help="With none: the binding of this type.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Judge a source's events by a schema."""
    wanted: dict[str, Any] = {"schemaId": None if schema_id == "none" else schema_id}
    if event_type is not None:
        wanted["eventType"] = event_type
    with _schemas(data_dir) as schemas:
        if not schemas.bind(source_id, wanted, by=_who()):
            raise ConfigurationError(f"there is no source {source_id}")
    typer.echo(f"source {source_id} is bound to {schema_id}")


@group.command()
def history(schema_id: str, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show who changed what in a schema, and when."""
    from dc_platform.registry.schemas import history as history_of

    with _schemas(data_dir) as schemas:
        _found(schemas, schema_id)
        found = history_of(schemas.versions(schema_id))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for version in found:
        typer.echo(f"{version['version']:>4}  {version['createdAt']}  {version['createdBy']}")
        for change in version["changes"]:
            typer.echo(f"      {change}")


def _read(path: Path) -> Any:
    import msgspec

    try:
        text = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ConfigurationError(f"{path}: expected a JSON object")
    return found


def _who() -> str:
    return f"user {getpass.getuser()}"


def _found(schemas: Schemas, schema_id: str, version: int | None = None) -> SchemaVersion:
    found = schemas.get(schema_id, version)
    if found is None:
        which = "schema" if version is None else f"version {version} of a schema"
        raise ConfigurationError(f"there is no {which} {schema_id}; dcp schema list shows them")
    return found


def _show_version(schema: SchemaVersion, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(schema.as_json(), indent=2))
        return
    judges = schema.event_type or "all event types"
    typer.echo(
        f"{schema.schema_id}  version {schema.version:3}  {schema.compatibility:8}  {schema.name}"
        f"  ({judges})"
    )


@contextmanager
def _schemas(data_dir: Path | None) -> Iterator[Schemas]:
    from dc_platform.registry.database import opened
    from dc_platform.registry.schemas import Schemas

    with opened(settings_of(data_dir).registry) as database:
        yield Schemas(database)
