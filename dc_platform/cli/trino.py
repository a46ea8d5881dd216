"""`dcp trino …`: the platform's tables in a Trino that somebody else runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dc_platform.cli.options import DataDir

group = typer.Typer(no_args_is_help=True, help="The tables in a Trino of your own.")

LakeUri = Annotated[
    str | None,
    typer.Option("--lake", help="Where Trino finds the lake (a directory, s3://…)."),
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="trino")


@group.callback()
def trino() -> None:
    """The tables in a Trino of your own."""


@group.command()
def catalog(
    directory: Annotated[Path, typer.Argument(help="Trino's etc, or a place to copy from.")],
    lake: LakeUri = None,
    kafka: Annotated[
        str | None, typer.Option(help="Brokers as Trino reaches them (host:port,…).")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the catalogs `lake` and `kafka`, with the description of the topic."""
    from dc_platform.cli.client import stack_or_environment
    from dc_platform.stack.server import write_properties
    from dc_platform.stack.trino_catalogs import Topic, files

    settings = stack_or_environment(data_dir, required=False)
    topic = Topic(kafka or settings.kafka_bootstrap, settings.topic)
    for name, content in files(lake or settings.lake, topic).items():
        write_properties(directory / name, content)
        print(directory / name)
    print("Put them into Trino's etc, start Trino again, then: dcp trino register")


@group.command("register")
def register_tables(lake: LakeUri = None, data_dir: DataDir = None) -> None:
    """Make every table of the lake known to Trino, and the union, as often as you like."""
    import httpx

    from dc_platform.cli.client import stack_or_environment, trino_url
    from dc_platform.errors import ConfigurationError
    from dc_platform.stack.trino_catalogs import Topic
    from dc_platform.stack.trino_client import TrinoClient
    from dc_platform.stack.trino_tables import TrinoTables

    settings = stack_or_environment(data_dir, required=False)
    client = TrinoClient(trino_url(settings))
    topic = Topic(settings.kafka_bootstrap, settings.topic)
    tables = TrinoTables(client, lake or settings.lake, topic, late_ms=settings.late_ms)
    try:
        known = tables.keep()
    except httpx.HTTPError as error:
        raise ConfigurationError(
            f"Trino at {client.url} did not answer ({error}): set DCP_TRINO_URL"
        ) from error
    print(f"{len(known)} tables: {', '.join(sorted(known))}")
