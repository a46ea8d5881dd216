"""`dcp bench search`: how fast the index of words is built, how large it is, and how fast it answers.

Five kinds of query, each with as many different words as it is asked times, through all of what serving
does for an answer: parsing, index, reading the events from silver, highlights. Of each kind some are
compared with a scan: all of silver is read, its words are made, and each event is looked at; the number
of matches is to be the same, and the first two pages. The same questions to DuckDB, as texts within the
payload, without words and without an index, are the measure of what the index is for.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa

from dc_platform.bench import search_lake
from dc_platform.bench.measure import BenchFailedError, run_python
from dc_platform.bench.probes import percentiles
from dc_platform.bench.search_lake import HAPPENED, HOURS, SOURCES, START_MS, THINGS
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.rewrite import in_pieces
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, sql_list
from dc_platform.search.analysis import COLUMNS, Analyzer
from dc_platform.search.home import Home
from dc_platform.search.index import Wanted
from dc_platform.search.language import AllOf, Not, Phrase, Tree, parse
from dc_platform.serving.engine import Engine
from dc_platform.serving.search import Search, SearchRequest, where_of
from dc_platform.serving.view import View
from dc_platform.settings import Settings

_LIMIT = 20
_COMPARED = 2


def bench_search(*, events: int, queries: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Build silver and its index with `events` events and ask `queries` of each kind."""
    with tempfile.TemporaryDirectory(prefix="dcp-bench-search-") as name:
        settings = Settings(data_dir=Path(name))
        search_lake.build(
            Path(settings.lake), events, progress=lambda done: say(f"silver: {done:,} events")
        )
        result: dict[str, Any] = {"events": events} | _built(settings, events)
        say(f"index: {result['build_events_per_second']:,.0f} events/s")
        asked = _Asked(settings)
        for kind, requests in kinds(queries).items():
            result |= asked.timed(kind, requests)
            result[f"{kind}_duckdb_ms"] = asked.by_duckdb(requests[:_COMPARED])
            say(
                f"{kind}: p50 {result[f'{kind}_p50_ms']} ms, p99 {result[f'{kind}_p99_ms']} ms,"
                f" a scan of DuckDB {result[f'{kind}_duckdb_ms']} ms"
            )
        say("the same by looking at each event")
        compared = {kind: requests[:_COMPARED] for kind, requests in kinds(queries).items()}
        result["compared_with_scan"] = asked.compare(compared)
        return result


def kinds(queries: int) -> dict[str, list[dict[str, Any]]]:
    """Kind → bodies of requests."""
    random = Random(7)
    made: dict[str, list[dict[str, Any]]] = {}
    for _ in range(queries):
        thing, other = random.sample(THINGS, 2)
        happened = random.choice(HAPPENED)
        hour = START_MS + random.randrange(HOURS - 1) * 3_600_000
        source = f"00000000-0000-0000-0000-0000be7c{random.randrange(SOURCES):04x}"
        each: dict[str, dict[str, Any]] = {
            "word": {"query": random.choice([thing, f"{random.randrange(200_000):06d}"])},
            "phrase": {"query": f'"{thing} {happened}"'},
            "boolean": {"query": f"error ({thing} OR {other}) -{random.choice(('failed', 'stalled'))}"},
            "prefix": {"query": f"{random.randrange(256):02x}{random.randrange(256):02x}*"},
            "filtered": {
                "query": thing, "from": hour, "to": hour + 3_600_000, "sourceId": source
            },
        }  # fmt: skip
        for kind, body in each.items():
            made.setdefault(kind, []).append(body)
    return made


def _built(settings: Settings, events: int) -> dict[str, Any]:
    data_dir = settings.data_dir
    cost = run_python(
        "dc_platform.bench.search_build",
        [str(data_dir)],
        environment={},
        log=data_dir / "build.log",
    )
    size = Home(data_dir).bytes
    silver = LakeTable(Lake(settings.lake), SILVER_EVENTS).snapshot()
    return {
        "build_events_per_second": round(events / cost.result["seconds"]),
        "build_cpu_seconds": round(cost.cpu_seconds, 1),
        "build_peak_rss_mb": round(cost.peak_rss_mb),
        "index_mb": round(size / 1e6, 1),
        "index_bytes_per_event": round(size / events, 1),
        "silver_mb": round(silver.bytes / 1e6, 1),
        "segments": cost.result["segments"],
    }


class _Asked:
    """Serving's search over a view without a tail."""

    def __init__(self, settings: Settings) -> None:
        self._lake = Lake(settings.lake)
        self._view = View(LakeTable(self._lake, SILVER_EVENTS).snapshot(), {})
        self._search = Search(settings, self._lake, Engine(settings, self._lake))
        self._analyzer = Analyzer(threads=2)

    def answer(self, body: Mapping[str, Any]) -> dict[str, Any]:
        request = SearchRequest.model_validate({**body, "limit": _LIMIT})
        return self._search.answer(self._view, request, tenant_id="default")

    def timed(self, kind: str, requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        times, found = [], []
        for body in requests:
            begun = time.perf_counter()
            found.append(self.answer(body)["totalCount"])
            times.append((time.perf_counter() - begun) * 1000)
        return {
            **percentiles(kind, times),
            f"{kind}_matches_p50": round(statistics.median(found)),
        }

    def by_duckdb(self, requests: Sequence[Mapping[str, Any]]) -> float:
        """Milliseconds that DuckDB takes for one of them on the same files, two threads; the median."""
        files = sql_list(self._view.silver.paths)
        times = []
        with duckdb.connect(config={"threads": 2}) as connection:
            for body in requests:
                wanted, parameters = _wanted(body, self._analyzer), dict[str, Any]()
                where = _plain(wanted.tree, parameters)
                if wanted.sources is not None:
                    parameters["source"] = wanted.sources[0]
                    where += " and source_id = $source"
                if wanted.from_us is not None:
                    where += f" and event_time >= make_timestamptz({wanted.from_us})"
                if wanted.to_us is not None:
                    where += f" and event_time < make_timestamptz({wanted.to_us})"
                begun = time.perf_counter()
                connection.execute(
                    f"select * from read_parquet({files}) where {where}"
                    f" order by event_time desc limit {_LIMIT}",
                    parameters,
                ).fetchall()
                times.append((time.perf_counter() - begun) * 1000)
        return round(statistics.median(times), 1)

    def compare(self, requests: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, int]:
        """Kind → queries of which the number of matches and the first results are the scan's."""
        bodies = [body for some in requests.values() for body in some]
        scans = self._scans(bodies)
        equal = {}
        for kind, some in requests.items():
            for body in some:
                count, first = scans[bodies.index(body)]
                answer = self.answer(body)
                ids = [result["eventId"] for result in answer["results"]]
                if "nextCursor" in answer:
                    more = self.answer({**body, "cursor": answer["nextCursor"]})
                    ids += [result["eventId"] for result in more["results"]]
                if (answer["totalCount"], ids) != (count, first):
                    raise BenchFailedError(f"{body}: search gives other events than a scan")
            equal[kind] = len(some)
        return equal

    def _scans(self, bodies: Sequence[Mapping[str, Any]]) -> list[tuple[int, list[str]]]:
        wanted = [_wanted(body, self._analyzer) for body in bodies]
        counts = [0] * len(bodies)
        found: list[list[tuple[int, int, str]]] = [[] for _ in bodies]
        root = self._lake.uri_of(SILVER_EVENTS)
        with duckdb.connect(config={"threads": 2}) as connection:
            for path in self._view.silver.actions["path"].to_pylist():
                for batch in in_pieces(root, path, COLUMNS):
                    events = pa.Table.from_batches([batch])
                    words = self._analyzer.searchable(events)
                    connection.register("beside", words.append_column("id", events["event_id"]))
                    for n, one in enumerate(wanted):
                        parameters: dict[str, Any] = {}
                        rows = connection.execute(
                            "select -event_time, identity, id from beside where"
                            f" {where_of(one, parameters)}",
                            parameters,
                        ).fetchall()
                        counts[n] += len(rows)
                        found[n] = sorted([*found[n], *rows])[: 2 * _LIMIT]
        return [(n, [row[2] for row in rows]) for n, rows in zip(counts, found, strict=True)]


def _plain(tree: Tree, parameters: dict[str, Any]) -> str:
    """The tree as a condition on the payload's text, in which words may go on at both ends."""
    if isinstance(tree, Phrase):
        name = f"t{len(parameters)}"
        parameters[name] = " ".join(tree.words)
        if tree.prefix:
            parameters[name] = rf"\b{parameters[name]}"
            return f"regexp_matches(lower(payload), ${name})"
        return f"contains(lower(payload), ${name})"
    if isinstance(tree, Not):
        return f"not {_plain(tree.inner, parameters)}"
    between = " and " if isinstance(tree, AllOf) else " or "
    return f"({between.join(_plain(part, parameters) for part in tree.parts)})"


def _wanted(body: Mapping[str, Any], analyzer: Analyzer) -> Wanted:
    source = body.get("sourceId")
    return Wanted(
        parse(body["query"], analyzer.of_texts),
        "default",
        None if source is None else [source],
        None,
        *(None if body.get(at) is None else body[at] * 1000 for at in ("from", "to")),
    )
