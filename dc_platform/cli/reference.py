"""`dcp reference …`: tables that events are enriched from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of

if TYPE_CHECKING:
    import pyarrow as pa

    from dc_platform.lake.reference import Reference, References

group = typer.Typer(no_args_is_help=True, help="Tables that events are enriched from.")
Tenant = Annotated[str, typer.Option("--tenant", help="Whose table it is.")]
_READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
    ".parquet": "read_parquet",
}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="reference")


@group.command()
def put(
    name: str,
    file: Annotated[Path, typer.Argument(help="CSV, JSON or Parquet.", exists=True)],
    key: Annotated[str, typer.Option("--key", help="Column that names each row once.")],
    tenant: Tenant = "default",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Write a file as table ref.NAME; all rows that it had are replaced."""
    done = _references(data_dir).put(tenant, name, _read(file), key)
    typer.echo(
        json.dumps(_shown(done))
        if as_json
        else f"ref.{name}: {done.rows:,} rows, key {done.key}, version {done.version}"
    )


@group.command("list")
def list_(tenant: Tenant = "default", as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the reference tables."""
    references = _references(data_dir)
    found = [r for n in references.names(tenant) if (r := references.get(tenant, n)) is not None]
    if as_json:
        typer.echo(json.dumps([_shown(r) for r in found], indent=2))
        return
    for reference in found:
        columns = ", ".join(reference.columns.names)
        typer.echo(f"ref.{reference.name:20} {reference.rows:>9,} rows  {columns}")


@group.command()
def remove(name: str, tenant: Tenant = "default", data_dir: DataDir = None) -> None:
    """Delete a reference table."""
    from dc_platform.errors import ConfigurationError

    if not _references(data_dir).remove(tenant, name):
        raise ConfigurationError(
            f"there is no ref.{name}; `dcp reference list` shows what there is"
        )
    typer.echo(f"ref.{name} is deleted")


@group.command()
def bind(
    name: str,
    schema_id: Annotated[str, typer.Argument(help="Schema whose typed view gets the columns.")],
    field: Annotated[str, typer.Argument(help="Field whose values are the table's keys.")],
    tenant: Tenant = "default",
    data_dir: DataDir = None,
) -> None:
    """Join ref.NAME to a schema's typed view, where a field of the payload is its key."""
    if _references(data_dir).get(tenant, name) is None:
        raise _no_reference(name)
    _enrich(data_dir, tenant, schema_id, field, name)
    typer.echo(f"{field} is enriched from ref.{name}")


@group.command()
def unbind(
    schema_id: str, field: str, tenant: Tenant = "default", data_dir: DataDir = None
) -> None:
    """End the join of a field."""
    _enrich(data_dir, tenant, schema_id, field, None)
    typer.echo(f"{field} is enriched no longer")


def _enrich(
    data_dir: Path | None, tenant: str, schema_id: str, field: str, name: str | None
) -> None:
    from dc_platform.errors import ConfigurationError
    from dc_platform.registry.database import opened
    from dc_platform.registry.shapes import Shapes

    with opened(settings_of(data_dir).registry) as database:
        if not Shapes(database, seconds=0).enrich(tenant, schema_id, field, name):
            raise ConfigurationError(f"there is no schema {schema_id}; see dcp schema list")


def _no_reference(name: str) -> Exception:
    from dc_platform.errors import ConfigurationError

    return ConfigurationError(f"there is no ref.{name}; `dcp reference list` shows what there is")


def _references(data_dir: Path | None) -> References:
    from dc_platform.lake.reference import References
    from dc_platform.lake.store import Lake

    return References(Lake(settings_of(data_dir).lake))


def _read(file: Path) -> pa.Table:
    import duckdb

    from dc_platform.errors import ConfigurationError

    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise ConfigurationError(f"{file}: cannot read {file.suffix!r}; use {', '.join(_READERS)}")
    try:
        with duckdb.connect() as connection:
            found: pa.Table = connection.execute(
                f"select * from {reader}(?)", [str(file)]
            ).to_arrow_table()
    except duckdb.Error as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    return found


def _shown(reference: Reference) -> dict[str, Any]:
    return {
        "name": reference.name,
        "tenant": reference.tenant_id,
        "key": reference.key,
        "columns": {field.name: str(field.type) for field in reference.columns},
        "rows": reference.rows,
        "version": reference.version,
    }
