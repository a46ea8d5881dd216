"""`dcp bench`: benchmarks on this machine. The last line printed is one JSON object."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dc_platform.cli.options import AsJson

bench_app = typer.Typer(help="Measure on this machine; the last line is one JSON object.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(bench_app, name="bench", no_args_is_help=True)


Events = Annotated[int, typer.Option(help="Events to land.")]
Preload = Annotated[int, typer.Option(help="Events that silver holds already.")]
Rounds = Annotated[int, typer.Option(help="Times that each is measured; the median counts.")]
Rate = Annotated[int, typer.Option(help="Events per second while freshness is measured.")]
Probes = Annotated[int, typer.Option(help="Events whose way is timed.")]
Commits = Annotated[int, typer.Option(min=500, help="Commits of silver to make.")]
Records = Annotated[int, typer.Option(help="Records of ten events offered per second.")]
Out = Annotated[Path | None, typer.Option(help="Directory for samples, figures and plot.")]
StoppedMinutes = Annotated[float, typer.Option(help="How long landing is stopped.")]
StoppedRate = Annotated[int, typer.Option(help="Events per second while landing is stopped.")]


@bench_app.command()
def landing(
    events: Events = 1_000_000,
    preload: Preload = 20_000_000,
    rounds: Rounds = 3,
    as_json: AsJson = False,
) -> None:
    """Kafka into bronze and silver, validated and deduplicated, beside the plain one-table loop."""
    from dc_platform.bench.landing import bench_landing

    _print(bench_landing(events=events, preload=preload, rounds=rounds, say=_say), as_json)


@bench_app.command()
def freshness(
    rate: Rate = 1_000,
    probes: Probes = 300,
    stopped_minutes: StoppedMinutes = 10.0,
    stopped_rate: StoppedRate = 20_000,
    as_json: AsJson = False,
) -> None:
    """From the sending of an event to its appearance in POST /api/v1/query, on a fixed schedule."""
    from dc_platform.bench.freshness import bench_freshness

    result = bench_freshness(
        rate=rate,
        probes=probes,
        stopped_minutes=stopped_minutes,
        stopped_rate=stopped_rate,
        say=_say,
    )
    _print(result, as_json)


@bench_app.command()
def flood(
    rate: Annotated[int, typer.Option(help="Events per second that are offered.")] = 50_000,
    minutes: Annotated[float, typer.Option(help="How long they are offered.")] = 5.0,
    probes: Probes = 300,
    overload: Annotated[
        bool, typer.Option("--overload", help="Then offer twice what this machine lands.")
    ] = False,
    overload_minutes: Annotated[float, typer.Option(help="How long that is offered.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """A steady flood into a real stack: how old events are in Delta and in queries, and the lag."""
    from dc_platform.bench.flood import bench_flood

    result = bench_flood(
        rate=rate,
        minutes=minutes,
        probes=probes,
        overload=overload,
        overload_minutes=overload_minutes,
        say=_say,
    )
    _print(result, as_json)


@bench_app.command()
def soak(
    commits: Commits = 20_000,
    rate: Records = 100,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Thousands of commits, with compaction, clean-up and Dagster at work: what grows?"""
    from dc_platform.bench.soak import bench_soak

    _print(bench_soak(commits=commits, rate=rate, out=out, say=_say), as_json)


@bench_app.command()
def search(
    events: Annotated[int, typer.Option(help="Events of silver.")] = 10_000_000,
    queries: Annotated[int, typer.Option(min=2, help="Queries of each of five kinds.")] = 100,
    as_json: AsJson = False,
) -> None:
    """The index of words: how fast it is built, how large it is, how fast it answers."""
    from dc_platform.bench.search import bench_search

    _print(bench_search(events=events, queries=queries, say=_say), as_json)


@bench_app.command()
def query(
    events: Annotated[int, typer.Option(min=100_000, help="Events of the lake.")] = 100_000_000,
    lake: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the lake, kept for the next run; else bench-query below"
            " DCP_DATA_DIR."
        ),
    ] = None,
    clickhouse: Annotated[
        Path | None,
        typer.Option(help="A Python that has chdb; else that of benchmarks/.venv, if any."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Queries over 30 days, beside DuckDB on the same files and ClickHouse on the same events."""
    from dc_platform.bench.query import bench_query
    from dc_platform.bench.query_peers import PEERS_PYTHON
    from dc_platform.settings import settings

    lake = lake or settings().data_dir.absolute() / "bench-query"
    if clickhouse is None and PEERS_PYTHON.exists():
        clickhouse = PEERS_PYTHON
    result = bench_query(events=events, lake=lake.absolute(), clickhouse=clickhouse, say=_say)
    _print(result, as_json)


@bench_app.command(name="all")
def all_(as_json: AsJson = False) -> None:
    """Every bench, one after the other."""
    from dc_platform.bench.flood import bench_flood
    from dc_platform.bench.freshness import bench_freshness
    from dc_platform.bench.landing import bench_landing

    result = {
        "landing": bench_landing(events=1_000_000, preload=20_000_000, rounds=3, say=_say),
        "freshness": bench_freshness(
            rate=1_000, probes=300, stopped_minutes=10.0, stopped_rate=20_000, say=_say
        ),
        "flood": bench_flood(
            rate=50_000, minutes=5.0, probes=300, overload=True, overload_minutes=1.0, say=_say
        ),
    }
    _print(result, as_json)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(result: dict[str, Any], as_json: bool) -> None:
    if not as_json:
        for name, value in result.items():
            print(f"{name:45} {value}")
    print(json.dumps(result))
