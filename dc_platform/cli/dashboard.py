"""`dcp dashboard`: the link to the dashboard of a running stack."""

from __future__ import annotations

from pathlib import Path

import typer

from dc_platform.cli.options import DataDir, settings_of


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(dashboard)


def dashboard(data_dir: DataDir = None) -> None:
    """Print a link that opens the dashboard, signed in. Whoever has it can query all events."""
    from dc_platform.cli.client import stack_info

    directory = settings_of(data_dir).data_dir
    typer.echo(signed_in(stack_info(directory)["query"], directory))


def signed_in(base_url: str, data_dir: Path) -> str:
    """The dashboard's address with this user's token in the fragment, which no browser sends."""
    from dc_platform.cli.client import local_token
    from dc_platform.registry.tokens import Scope

    return f"{base_url}/dashboard/#token={local_token(data_dir, Scope.QUERY)}"
