"""`dcp backup …` and `dcp restore`: copies of the lake, and the ways back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.client import stack_or_environment
from dc_platform.cli.options import AsJson, DataDir
from dc_platform.errors import PlatformError

if TYPE_CHECKING:
    from dc_platform.backup.run import Done
    from dc_platform.backup.store import Manifest

app = typer.Typer(help="Copies of the lake in DCP_BACKUP_URI.", no_args_is_help=True)
_LINE = "{:<26} {:<26} {:>9} {:>14} {:>16} {:>16}"


class DamagedError(PlatformError):
    """A backup is not what its manifest says."""


def register(parent: typer.Typer) -> None:
    """Add the verbs."""
    parent.add_typer(app, name="backup")
    parent.command()(restore)


@app.command()
def create(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Copy all tables as they belong to one version of silver, and the registry.

    Landing goes on. What a former backup has is not copied again.
    """
    from dc_platform.backup.create import create_backup
    from dc_platform.backup.run import backups_of
    from dc_platform.lake.store import Lake
    from dc_platform.points import armed

    configured = stack_or_environment(data_dir, required=False)
    made = create_backup(
        Lake(configured.lake),
        configured.registry,
        backups_of(configured),
        reached=armed(configured.crash_at),
    )
    if as_json:
        print(json.dumps(_summary(made)))
    else:
        print(
            f"{made.name}: {made.rows:,} rows, {made.bytes:,} bytes, of them {made.new_bytes:,} new in"
            f" {made.new_files:,} files; registry: {made.registry}"
        )


@app.command("list")
def list_(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """The backups, newest first."""
    from dc_platform.backup.run import backups_of

    found = backups_of(stack_or_environment(data_dir, required=False)).list()
    if as_json:
        print(json.dumps([_summary(manifest) for manifest in found]))
        return
    print(_LINE.format("name", "silver as of", "version", "rows", "bytes", "new bytes"))
    for m in found:
        numbers = (f"{n:,}" for n in (m.silver_version, m.rows, m.bytes, m.new_bytes))
        print(_LINE.format(m.name, m.silver_at, *numbers))


@app.command()
def verify(name: str, data_dir: DataDir = None) -> None:
    """Read every byte of a backup; exit code 1 when a file is missing or has changed."""
    from dc_platform.backup.run import backups_of
    from dc_platform.backup.verify import verify as look

    wrong = look(backups_of(stack_or_environment(data_dir, required=False)), name)
    if wrong:
        raise DamagedError(f"{name} is damaged: {'; '.join(wrong)}")
    print(f"{name}: every file is there and unchanged")


@app.command()
def remove(name: str, data_dir: DataDir = None) -> None:
    """Remove a backup, and the files that no other backup has."""
    from dc_platform.backup.run import backups_of

    backups = backups_of(stack_or_environment(data_dir, required=False))
    with backups.writing():
        files = backups.remove(name)
    print(f"{name} is removed, and {files:,} files that no other backup has")


def restore(
    to: Annotated[
        str,
        typer.Option(
            "--to", help="A time (ISO 8601, UTC), a version of silver.events, or a backup's name."
        ),
    ],
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            help="silver.events (default), bronze.events, silver.quarantine; may be repeated.",
        ),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Put silver back to what it was, files and offsets; landing then lands again what came after.

    Bronze and quarantine get back what they lost since, and lose nothing. An empty lake is filled from
    a backup.
    """
    from dc_platform.backup.run import restore as run
    from dc_platform.contracts.tables import SILVER_EVENTS
    from dc_platform.logs import configure_logging

    configured = stack_or_environment(data_dir, required=False)
    configure_logging(configured.log_level)
    done = run(configured, to, table or [SILVER_EVENTS.name])
    if as_json:
        print(json.dumps(_figures(done), default=str))
    else:
        print("\n".join(_said(done)))


def _summary(manifest: Manifest) -> dict[str, Any]:
    content = asdict(manifest)
    tables = {
        name: {"version": t.version, "rows": t.rows, "files": len(t.files)}
        for name, t in manifest.tables.items()
    }
    return {
        **content,
        "tables": tables,
        "silver_version": manifest.silver_version,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
    }


def _figures(done: Done) -> dict[str, Any]:
    return {
        "filled": done.filled.name if done.filled else None,
        "registry": done.registry,
        "mended": [table._asdict() for table in done.mended],
        "silver": done.silver._asdict() if done.silver else None,
    }


def _said(done: Done) -> list[str]:
    lines = []
    if done.filled is not None:
        lines.append(f"filled from {done.filled.name}: {done.filled.rows:,} rows")
        lines.append(f"registry: {'restored' if done.registry else 'as it was'}")
    lines += [f"{of.table}: {of.rows_before:,} rows before, {of.rows:,} now" for of in done.mended]
    silver = done.silver
    if silver is not None:
        lines.append(
            f"silver.events: {silver.rows_before:,} rows before, {silver.rows:,} now; version"
            f" {silver.version}, epoch {silver.epoch}; {silver.files_added} files came back,"
            f" {silver.files_removed} went"
        )
        if silver.rebuilt:
            days = ", ".join(map(str, silver.rebuilt))
            lines.append(f"built anew from bronze, their topic is gone: {days}")
    lines.append("what came after lands again now: dcp up, or dcp land; dcp audit tells")
    return lines
