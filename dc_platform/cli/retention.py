"""`dcp retention …`: how long events are kept, what a run would delete, deletion by person, proofs.

Works on the registry and the lake, of a stack or of the environment, also while the stack is down.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dc_platform.registry.retention import Retention
    from dc_platform.retention.deletion import Outcome
    from dc_platform.retention.run import RetentionRun

group = typer.Typer(no_args_is_help=True, help="How long events are kept, and what was deleted.")

Tenant = Annotated[str, typer.Option("--tenant", help="Whose events.")]
AtOnce = Annotated[
    bool,
    typer.Option(
        "--at-once",
        help="Remove replaced files now: queries that read an older version fail.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="retention")


@group.command("set")
def set_(
    data_type: Annotated[str, typer.Argument(help="An event type, or '*' for all others.")],
    retention_days: Annotated[int, typer.Option("--retention-days", min=1)],
    archive_after_days: Annotated[
        int | None, typer.Option("--archive-after-days", min=0, help="Default: when deleted.")
    ] = None,
    tenant: Tenant = "default",
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Set the policy of an event type; it takes the place of the one before."""
    from dc_platform.errors import ConfigurationError

    archived = retention_days if archive_after_days is None else archive_after_days
    if archived > retention_days:
        raise ConfigurationError("--archive-after-days is beyond --retention-days")
    with _retention(data_dir) as retention:
        policy = retention.set_policy(
            tenant, data_type, retention_days=retention_days, archive_after_days=archived
        )
    if as_json:
        typer.echo(json.dumps({"policyId": policy.policy_id}))
    else:
        typer.echo(f"policy {policy.policy_id}")


@group.command("list")
def list_(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show the policies in force, and the deletions that are not finished."""
    with _retention(data_dir) as retention:
        policies, pending = retention.policies(), retention.pending()
    if as_json:
        shown = [policy._asdict() for policy in policies]
        waiting = [{"deletionId": d.deletion_id, "kind": d.kind.value} for d in pending]
        typer.echo(json.dumps({"policies": shown, "pending": waiting}))
        return
    for policy in policies:
        typer.echo(
            f"{policy.policy_id}  {policy.tenant_id}  {policy.data_type}: kept"
            f" {policy.retention_days} days, archived after {policy.archive_after_days}"
        )
    for deletion in pending:
        typer.echo(f"pending: {deletion.deletion_id}  {deletion.kind}  asked by {deletion.who}")


@group.command()
def end(policy_id: str, data_dir: DataDir = None) -> None:
    """End a policy: nothing more is deleted by it; what was deleted stays deleted."""
    from dc_platform.errors import ConfigurationError

    with _retention(data_dir) as retention:
        if not retention.end_policy(policy_id):
            raise ConfigurationError(
                f"there is no policy {policy_id}; dcp retention list shows them"
            )
    typer.echo(f"policy {policy_id} has ended")


@group.command()
def plan(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """What the next run would delete and move to other tiers; nothing is changed."""
    from dataclasses import asdict

    with _run(data_dir) as run:
        planned, standing = run.plan(), run.standing()
    if as_json:
        typer.echo(json.dumps({"planned": [asdict(p) for p in planned], "now": standing}))
        return
    for row in standing:
        typer.echo(
            f"{row['table']:18} {row['tier']:5} {row['rows']:>14,} rows {row['files']:>6,} files"
            f" {row['bytes']:>16,} bytes  ${row['dollars']:.4f} a month"
        )
    for p in planned:
        typer.echo(
            f"{p.action:6} {p.rows:,} rows of {p.table} ({p.tier}): {p.files:,} files, {p.bytes:,}"
            f" bytes, ${p.dollars_before:.4f} a month to ${p.dollars_after:.4f}"
        )
    if not planned:
        typer.echo("nothing is due")


@group.command()
def run(at_once: AtOnce = False, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Delete what is due, finish what is pending, move old files to their tiers."""
    with _run(data_dir) as made:
        outcomes = made.run(who=_who(), at_once=at_once)
        moved = made.move()
    shown = [_shown(outcome) for outcome in outcomes]
    if as_json:
        typer.echo(json.dumps({"deletions": shown, "moved": len(moved)}))
        return
    for outcome in shown:
        typer.echo(_line(outcome))
    typer.echo(f"{len(shown)} deletions; {len(moved)} groups of files moved to another tier")


@group.command("delete-person")
def delete_person(
    field: Annotated[str, typer.Option("--field", help="Path in the payload, or sourceId.")],
    value: Annotated[str, typer.Option("--value", help="Its value: whose events go.")],
    tenant: Tenant = "default",
    at_once: AtOnce = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Delete every event of a person from all tables, and prove it.

    Exit code 1 while something is left to wait for; `dcp retention run` goes on.
    """
    from dc_platform.registry.retention import Kind
    from dc_platform.retention.conditions import of_person

    of_person(tenant, field, value)
    with _run(data_dir) as made, _retention(data_dir) as retention:
        asked = retention.request(
            Kind.PERSON, tenant, {"field": field, "value": value}, who=_who(), at_once=at_once
        )
        outcome = _shown(made.carry_out(asked))
    typer.echo(json.dumps(outcome) if as_json else _line(outcome))
    if outcome["waits"] is not None:
        raise typer.Exit(1)


@group.command()
def proof(deletion_id: str, data_dir: DataDir = None) -> None:
    """Show what a deletion took, and the scan that found nothing of it (JSON)."""
    from dc_platform.errors import ConfigurationError
    from dc_platform.lake.store import Lake
    from dc_platform.retention.deletion import recorded

    rows = recorded(Lake(_settings(data_dir).lake), deletion_id)
    if not rows:
        raise ConfigurationError(f"no deletion {deletion_id} is finished; dcp retention list shows")
    typer.echo(json.dumps(rows, default=str))


def _shown(outcome: Outcome) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "deletionId": outcome.deletion.deletion_id,
        "kind": outcome.deletion.kind.value,
        "erased": {name: asdict(figures) for name, figures in outcome.erased.items()},
        "tombstones": outcome.tombstones,
        "proof": None if outcome.proof is None else outcome.proof.as_dict(),
        "waits": outcome.waits,
    }


def _line(outcome: dict[str, Any]) -> str:
    rows = ", ".join(f"{e['rows']:,} of {name}" for name, e in outcome["erased"].items())
    if outcome["waits"] is not None:
        return f"{outcome['deletionId']}: deleted {rows}; not finished: {outcome['waits']}"
    files = outcome["proof"]["files"]
    return f"{outcome['deletionId']}: deleted {rows}; proved: nothing of it in {files:,} files"


def _who() -> str:
    import getpass

    try:
        return f"dcp, {getpass.getuser()}"
    except (KeyError, OSError):
        return "dcp"


def _settings(data_dir: Path | None) -> Any:
    """Those of the stack in the directory when there is one, else of the environment."""
    from dc_platform.cli.client import stack_info
    from dc_platform.errors import ConfigurationError

    configured = settings_of(data_dir)
    try:
        info = stack_info(configured.data_dir)
    except ConfigurationError:
        return configured
    return settings_of(
        configured.data_dir,
        kafka_bootstrap=info["kafka"],
        topic=info["topic"],
        lake_uri=info["lake"],
    )


@contextmanager
def _retention(data_dir: Path | None) -> Iterator[Retention]:
    from dc_platform.registry.database import opened
    from dc_platform.registry.retention import Retention

    with opened(_settings(data_dir).registry) as database:
        yield Retention(database)


@contextmanager
def _run(data_dir: Path | None) -> Iterator[RetentionRun]:
    from dc_platform.logs import configure_logging
    from dc_platform.retention.run import RetentionRun

    configured = _settings(data_dir)
    configure_logging(configured.log_level)
    with _retention(data_dir) as retention:
        yield RetentionRun(configured, retention)
