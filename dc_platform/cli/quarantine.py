"""`dcp quarantine …`: what was rejected, and its replay after a fix."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dc_platform.cli.options import AsJson, DataDir, settings_of

if TYPE_CHECKING:
    from datetime import date

    from dc_platform.landing.replay import Replay, Replayed
    from dc_platform.settings import Settings

group = typer.Typer(no_args_is_help=True, help="What was rejected, and its replay after a fix.")


class State(StrEnum):
    """What became of a row."""

    OPEN = "open"
    REPLAYED = "replayed"
    FAILING = "failing"


Reason = Annotated[str | None, typer.Option(help="Only rows with this typed reason.")]
Source = Annotated[str | None, typer.Option(help="Only rows of the source with this id.")]
Version = Annotated[
    str | None, typer.Option("--schema-version", help="Only rows judged with this version.")
]
First = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First ingest date, UTC.")
]
Last = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last ingest date, UTC.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="quarantine")


@group.command("list")
def list_(
    reason: Reason = None,
    source: Source = None,
    schema_version: Version = None,
    state: Annotated[State | None, typer.Option(help="Only rows in this state.")] = None,
    first: First = None,
    last: Last = None,
    examples: Annotated[int, typer.Option(min=0, max=200, help="So many of the newest.")] = 5,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Count rows by reason, source and day, and show the newest."""
    query = {
        "reason": reason,
        "source": source,
        "schemaVersion": schema_version,
        "state": state and state.value,
        "from": first and first.date().isoformat(),
        "to": last and last.date().isoformat(),
        "examples": examples,
    }
    found = _ask(data_dir, "", {k: v for k, v in query.items() if v is not None}).json()
    if as_json:
        print(json.dumps(found))
        return
    line = "{:<26} {:<36} {:<10} {:>10} {:>10} {:>10} {:>10}"
    figures = ("count", "open", "replayed", "failing")
    print(line.format("reason", "source", "day", *figures))
    for row in found["groups"]:
        counts = [f"{row[name]:,}" for name in figures]
        print(line.format(row["reason"], str(row["sourceId"] or ""), row["day"], *counts))
    print(line.format("all", "", "", *(f"{found[name]:,}" for name in figures)))
    for row in found["examples"]:
        print(f"\n{row['quarantineId']}  {row['reason']}  {row['state']}: {row['message']}")
        print(f"  {row['excerpt'][:200]}")


@group.command()
def show(
    quarantine_id: Annotated[str, typer.Argument(metavar="ID")],
    raw: Annotated[bool, typer.Option("--raw", help="Print the bytes and nothing else.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show a row, its bytes and its replays."""
    answer = _ask(data_dir, f"/{quarantine_id}", {"format": "raw" if raw else "json"})
    if raw:
        sys.stdout.buffer.write(answer.content)
        return
    found = answer.json()
    if as_json:
        print(json.dumps(found))
        return
    for name in ("reason", "message", "remedy", "state", "sourceId", "rawLength", "rawSha256"):
        print(f"{name:<10} {found[name]}")
    for replay in found["replays"]:
        why = f": {replay['reason']}, {replay['message']}" if replay["reason"] else ""
        print(f"replay     event {replay['position']} {replay['result']}{why} ({replay['run']})")
    print(found["text"] if found["text"] is not None else f"base64     {found['base64']}")


@group.command()
def replay(
    reason: Reason = None,
    source: Source = None,
    schema_version: Version = None,
    row: Annotated[str | None, typer.Option("--id", help="Only the row with this id.")] = None,
    first: First = None,
    last: Last = None,
    patch: Annotated[
        str | None,
        typer.Option(
            help="The repair: a JSON Merge Patch (RFC 7396) for each event, or @FILE that has it."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Judge open rows again and send what passes now; landing lands it. Twice adds nothing."""
    from dc_platform.cli.client import stack_or_environment
    from dc_platform.contracts.merge_patch import read_patch
    from dc_platform.lake.replays import Selection
    from dc_platform.landing.replay import Replay

    text = Path(patch[1:]).read_text() if patch and patch.startswith("@") else patch
    asked = Replay(
        f"dcp quarantine replay, {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        Selection(reason, source, schema_version, row),
        read_patch(text) if text else None,
        dry_run,
    )
    between = (first and first.date(), last and last.date())
    done = _replay(stack_or_environment(data_dir), asked, between)
    if as_json:
        print(json.dumps(_figures(done)))
        return
    verb = "would be" if dry_run else "were"
    print(
        f"{done.rows:,} open rows: {done.replayed:,} events {verb} replayed, {done.known:,} are in"
        f" silver already, {done.rejected:,} still do not pass"
    )
    for name, count in done.still.most_common():
        print(f"  {name}: {count:,}")
    for example in done.examples:
        print(f"  {example['quarantineId']}  {example['reason']}: {example['message']}")


def _replay(
    configured: Settings, asked: Replay, between: tuple[date | None, date | None]
) -> Replayed:
    from dc_platform.lake.replays import days_of
    from dc_platform.lake.store import Lake
    from dc_platform.landing.replay import Replayed, replay_day, today
    from dc_platform.registry.database import opened
    from dc_platform.registry.sources import Sources

    first, last = between
    accept = configured.unknown_sources == "accept"
    lake = Lake(configured.lake)
    done = Replayed()
    with opened(configured.registry) as database:
        now = today(Sources(database), accept_unknown=accept)
        for day in days_of(lake):
            if (first is None or day >= first) and (last is None or day <= last):
                done.add(replay_day(configured, lake, day, asked, now=now))
    return done


def _figures(done: Replayed) -> dict[str, Any]:
    return {
        "rows": done.rows,
        "replayed": done.replayed,
        "known": done.known,
        "rejected": done.rejected,
        "stillRejected": dict(done.still),
        "examples": done.examples,
    }


def _ask(data_dir: Path | None, path: str, query: dict[str, Any]) -> Any:
    """Serving's answer; raises ConfigurationError with its reason."""
    import httpx

    from dc_platform.cli.client import local_token, stack_info
    from dc_platform.errors import ConfigurationError, StoreUnavailableError
    from dc_platform.registry.tokens import Scope

    directory = settings_of(data_dir).data_dir
    base = stack_info(directory)["query"]
    headers = {"Authorization": f"Bearer {local_token(directory, Scope.QUERY)}"}
    try:
        answer = httpx.get(
            f"{base}/api/v1/quarantine{path}", params=query, headers=headers, timeout=120
        )
    except httpx.HTTPError as error:
        raise StoreUnavailableError(
            f"serving at {base} did not answer ({error}); is the stack up? (dcp status)"
        ) from error
    if answer.status_code != 200:
        raise ConfigurationError(str(answer.json().get("detail", answer.text)))
    return answer
