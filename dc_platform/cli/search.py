"""`dcp search`: asks the serving process for words; builds the index anew."""

from __future__ import annotations

import html
import json
import re
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dc_platform.cli.options import AsJson, DataDir, settings_of
from dc_platform.errors import PlatformError

_ASKED = 100
_CELL = 100
_EM = re.compile(r"</?em>")


class _WordsOrVerb(TyperGroup):
    """`dcp search checkout` is `dcp search text checkout`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the verb in where it was left out."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["text", *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=_WordsOrVerb, no_args_is_help=True, help='Full text: dcp search "checkout failed".'
)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(group, name="search")


class SearchFailedError(PlatformError):
    """The server refused the search or could not run it."""


@group.command()
def text(
    words: Annotated[
        str, typer.Argument(help='Words, "a phrase", AND, OR, NOT, prefix*.', metavar="TEXT")
    ],
    from_: Annotated[str | None, typer.Option("--from", help="Not before: ISO 8601.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Before: ISO 8601.")] = None,
    source: Annotated[str | None, typer.Option(help="Only of this source (its id).")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only of this event type.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Events to print, newest first.")] = 20,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Search payloads and logs, what has landed and what is still in Kafka."""
    request = {"query": words, "from": from_, "to": to, "sourceId": source, "eventType": type_}
    answer = _all(settings_of(data_dir).data_dir, request, limit)
    if not answer["complete"]:
        print("note: not all events were searched; ask again soon", file=sys.stderr)
    if as_json:
        print(json.dumps(answer))
        return
    for event in answer["results"]:
        at = datetime.fromtimestamp(event["timestamp"] / 1000, UTC)
        names = f"{event['eventType']} {event['sourceId']} {event['eventId']}"
        print(_printable(f"{at:%Y-%m-%d %H:%M:%S} {names}"))
        for found in event["highlights"]:
            for fragment in found["fragments"]:
                print(f"    {_printable(found['field'])}: {_plain(fragment)}")
    print(f"({len(answer['results'])} of {answer['totalCount']} events)")


@group.command()
def rebuild(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Build the index from scratch, beside the one that there is, which is searched until then."""
    from dc_platform.search.build import Builder

    def say(rows: int) -> None:
        print(f"{rows:,} events", file=sys.stderr, end="\r", flush=True)

    built = Builder(settings_of(data_dir)).build(anew=True, say=say)
    if as_json:
        done = {"events": built.documents, "silverVersion": built.version}
        print(json.dumps({**done, "seconds": round(built.seconds, 3)}))
    else:
        print(
            f"{built.documents:,} events in {built.seconds:.1f} s, silver version {built.version}"
        )


@group.command()
def status(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """What the index covers, and how far it is behind silver."""
    from dc_platform.search.build import Builder

    builder = Builder(settings_of(data_dir))
    behind = builder.behind()
    found = {
        "events": behind.documents,
        "bytes": builder.home.bytes,
        "indexVersion": behind.version if behind.version >= 0 else None,
        "silverVersion": behind.silver_version,
        "eventsWaiting": behind.rows,
        "filesGone": behind.gone,
        "building": builder.home.is_building,
    }
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:15} {value}")


def _all(data_dir: Any, request: dict[str, Any], limit: int) -> dict[str, Any]:
    """The answer with so many events, page by page."""
    from dc_platform.cli.client import local_token, stack_info
    from dc_platform.registry.tokens import Scope

    url = f"{stack_info(data_dir)['query']}/api/v1/search"
    token = local_token(data_dir, Scope.QUERY)
    answer = _ask(url, token, {**request, "limit": min(limit, _ASKED)})
    results = answer["results"]
    while (cursor := answer.get("nextCursor")) and len(results) < limit:
        page = {"limit": min(limit - len(results), _ASKED), "cursor": cursor}
        answer = _ask(url, token, {**request, **page})
        results += answer["results"]
    return {**answer, "results": results}


def _ask(url: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
    import httpx

    from dc_platform.cli.sql import detail_of

    headers = {"Authorization": f"Bearer {token}"}
    try:
        answer = httpx.post(url, json=body, headers=headers, timeout=httpx.Timeout(10, read=None))
    except httpx.HTTPError as error:
        raise SearchFailedError(
            f"serving did not answer at {url} ({error}); is the stack up? (dcp status)"
        ) from error
    if answer.status_code != 200:
        raise SearchFailedError(detail_of(answer))
    found: dict[str, Any] = answer.json()
    return found


def _plain(fragment: str) -> str:
    """A fragment for a terminal: what matches is bold where it is one."""
    bold = {"<em>": "\x1b[1m", "</em>": "\x1b[0m"} if sys.stdout.isatty() else {}
    return html.unescape(_EM.sub(lambda tag: bold.get(tag[0], ""), _printable(fragment)))


def _printable(text: str) -> str:
    """Control characters of an event are no commands to the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
