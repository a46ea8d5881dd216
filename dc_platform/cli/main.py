"""`dcp`: the command line of the platform."""

from __future__ import annotations

import sys

import typer

from dc_platform.cli import (
    audit,
    backup,
    bench,
    dashboard,
    demo,
    gold,
    land,
    metrics,
    quarantine,
    reference,
    reports,
    retention,
    schemas,
    search,
    sources,
    sql,
    stack,
    tokens,
    trino,
    up,
)

app = typer.Typer(
    name="dcp",
    help="Data collection platform: every acknowledged event is in the Delta table exactly once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    *(up, demo, sources, schemas, reference, metrics, reports, tokens, sql, search, quarantine),
    *(dashboard, audit, retention, land, gold, trino, backup, bench, stack),
):
    module.register(app)


def main() -> None:
    """Run one verb; an error of the platform or of a file is one line and exit code 1."""
    from dc_platform.errors import PlatformError

    try:
        app()
    except (PlatformError, OSError) as error:
        reason = " ".join(str(error).split())
        sys.stderr.write(f"error: {reason}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
