"""`dcp token …`: who may query and administer."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of

group = typer.Typer(no_args_is_help=True, help="Who may query and administer.")


class TokenScope(StrEnum):
    """What a token may do; the same as `registry.tokens.Scope`, which takes long to import."""

    QUERY = "query"
    ADMIN = "admin"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="token")


@group.callback()
def tokens() -> None:
    """Who may query and administer."""


@group.command()
def create(
    scope: Annotated[TokenScope, typer.Option(help="admin may also change things.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Create a token; it is shown only now."""
    from dc_platform.registry.database import opened
    from dc_platform.registry.tokens import Scope, Tokens

    with opened(settings_of(data_dir).registry) as database:
        token = Tokens(database).create(Scope(scope.value))
    typer.echo(json.dumps({"token": token}) if as_json else token)
