"""`dcp stack …`: the programs that a stack is made of."""

from __future__ import annotations

from typing import Annotated

import typer

from dc_platform.cli.options import Extra

group = typer.Typer(no_args_is_help=True, help="The programs that a stack is made of.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="stack")


@group.command()
def fetch(
    extra: Annotated[
        list[Extra] | None, typer.Option("--with", help="Download this part too.")
    ] = None,
) -> None:
    """Download the programs, so that `dcp up` needs no network."""
    from dc_platform.stack import control

    control.fetch(with_trino=Extra.TRINO in (extra or ()))


@group.command("lock-jars", hidden=True)
def lock_jars() -> None:
    """Pin Kafka's files anew."""
    from dc_platform.stack import pinning

    typer.echo(pinning.lock_jars(), nl=False)
