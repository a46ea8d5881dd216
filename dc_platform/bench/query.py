"""`dcp bench query`: serving's answers beside those of DuckDB on the same files and of ClickHouse.

The lake of 30 days is built once (`query_base.py`). Each run adds the hour before it and a tail that
has not landed, starts Kafka and a serving process, and asks it over HTTP with a token. Of each class of
question those who answer it take turns in one window, and their first answers must be equal.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from dc_platform.bench import base_lake as copies
from dc_platform.bench import query_fresh, query_peers
from dc_platform.bench.measure import BenchFailedError
from dc_platform.bench.probes import percentiles
from dc_platform.bench.query_base import Base, base_lake, index_lake
from dc_platform.bench.query_classes import WARM_UP, Asked, Kind, comparable, kinds
from dc_platform.bench.query_peers import Peer
from dc_platform.bench.stack import wait_for
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.registry.database import opened
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.settings import Settings
from dc_platform.stack import ports
from dc_platform.stack.kafka import LocalKafka

_TOPIC = "bench-query"
_ROUNDS = 2
_CLIENTS = 16
# Who needs so long for one question is not asked by 16 at once.
_TOO_SLOW_MS = 6_000.0


def bench_query(
    *, events: int, lake: Path, clickhouse: Path | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run the bench; `clickhouse` is a Python that has chdb, None leaves it out."""
    base, reused = base_lake(lake, events, say)
    result: dict[str, Any] = {
        "events": base.events,
        "lake_reused": reused,
        "lake_build_seconds": base.lake_seconds,
        "silver_bytes": base.silver_bytes,
        "silver_files": base.silver_files,
        "gold_build_seconds": base.gold_seconds,
        "gold_rows": base.gold_rows,
        "gold_bytes": base.gold_bytes,
        **index_lake(lake, say),
    }
    begun = time.monotonic()
    with _prepared(lake, base, clickhouse, say, result) as (peers, classes):
        result["prepare_seconds"] = round(time.monotonic() - begun, 1)
        begun = time.monotonic()
        for kind in classes:
            result |= _measured(kind, peers, say)
        result["ask_seconds"] = round(time.monotonic() - begun, 1)
    return result | _ratios(result, classes)


@contextmanager
def _prepared(
    directory: Path,
    base: Base,
    clickhouse: Path | None,
    say: Callable[[str], None],
    result: dict[str, Any],
) -> Iterator[tuple[Mapping[str, Peer], list[Kind]]]:
    run = directory / "run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    chosen = ports.choose(needed=("kafka", "kafka_controller", "serving"), remembered={}, auto=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, run, ignore_errors=True)
        copies.copy(directory / "lake", run / "lake")
        lake = Lake(str(run / "lake"))
        before = set(LakeTable(lake, SILVER_EVENTS).snapshot().paths)
        kafka = stack.enter_context(
            LocalKafka(run / "kafka", chosen["kafka"], chosen["kafka_controller"])
        )
        now_ms = time.time_ns() // 1_000_000
        say("the hour before, and the tail")
        fresh = query_fresh.add_hour(lake, base.events, now_ms)
        tail = query_fresh.tail_rows(base.events + fresh, now_ms)
        query_fresh.produce(kafka.bootstrap, _TOPIC, tail, now_ms)
        query_fresh.write_beside(tail, run / "tail.parquet")
        result |= {"fresh_events": fresh, "tail_events": len(tail)}
        newest = LakeTable(lake, SILVER_EVENTS).snapshot()
        added = [path for path in newest.paths if path not in before]
        settings = Settings(
            data_dir=run / "data",
            lake_uri=str(run / "lake"),
            kafka_bootstrap=kafka.bootstrap,
            topic=_TOPIC,
        )
        url, token = stack.enter_context(_serving(settings, chosen["serving"], run))
        peers = {"": _started(stack, query_peers.api_command(url, token), run / "api.log")}
        command = query_peers.duckdb_command(settings.query_memory_mb)
        peers["duckdb"] = _started(stack, command, run / "duckdb.log")
        query_peers.show_files(peers["duckdb"], lake, run / "tail.parquet")
        if clickhouse is not None:
            peers["clickhouse"] = _started(
                stack,
                query_peers.clickhouse_command(clickhouse, directory / "clickhouse"),
                directory / "clickhouse.log",
            )
            said = _clickhouse(peers["clickhouse"], directory, say)
            result["clickhouse_load_seconds"] = said
            query_peers.add_fresh(peers["clickhouse"], [*added, str(run / "tail.parquet")])
        yield peers, kinds(base.end_ms, now_ms)


def _started(stack: ExitStack, command: list[str], log: Path) -> Peer:
    return stack.enter_context(query_peers.running(command, log))


def _clickhouse(peer: Peer, directory: Path, say: Callable[[str], None]) -> float:
    """Fill it when it is not; gives the seconds that it took, then or now."""
    manifest = directory / "clickhouse" / "filled.json"
    if manifest.exists():
        return float(json.loads(manifest.read_text())["seconds"])
    say("ClickHouse: loading")
    seconds = round(query_peers.fill_clickhouse(peer, Lake(str(directory / "lake"))), 1)
    manifest.write_text(json.dumps({"seconds": seconds}))
    say(f"ClickHouse: loaded in {seconds:.0f} s")
    return seconds


@contextmanager
def _serving(settings: Settings, port: int, run: Path) -> Iterator[tuple[str, str]]:
    """A serving process that has read the tail; gives its URL and a token."""
    settings.data_dir.mkdir(parents=True)
    with opened(settings.registry) as database:
        token = Tokens(database).create(Scope.QUERY)
    environment = {
        "DCP_DATA_DIR": str(settings.data_dir),
        "DCP_LAKE_URI": settings.lake_uri,
        "DCP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "DCP_TOPIC": settings.topic,
        # 16 who ask for a needle wait for each other.
        "DCP_QUERY_WAIT_SECONDS": "120",
    }
    with (run / "serving.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "dc_platform.serving", "--port", str(port)],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _has_tail(url), 120, "serving to read the tail")
        yield url, token
    finally:
        child.terminate()
        child.wait(60)


def _has_tail(url: str) -> bool:
    try:
        health = httpx.get(f"{url}/healthz", timeout=10).json()
    except httpx.HTTPError:
        return False
    return bool(health["complete"]) and health["tailRows"] == query_fresh.TAIL_ROWS


def _question(asked: Asked, who: str) -> Any:
    return asked.api if who == "" else getattr(asked, who)


def _measured(kind: Kind, peers: Mapping[str, Peer], say: Callable[[str], None]) -> dict[str, Any]:
    """Figures of a class; first answers are compared."""
    asked = {who: peer for who, peer in peers.items() if who in ("", *kind.peers)}
    questions = {who: [_question(q, who) for q in kind.questions] for who in asked}
    answers = {}
    for who, peer in asked.items():
        # Twice: files that nobody has read yet come into the kernel's cache.
        answers[who] = peer.ask(questions[who]).answer
        peer.ask(questions[who][1:], most=WARM_UP - 1, seconds=kind.seconds / 4)
    for who, answer in answers.items():
        if comparable(kind.name, answer) != comparable(kind.name, answers[""]):
            raise BenchFailedError(
                f"{kind.name}: {who} answers {answer[:3]}…, serving {answers[''][:3]}…"
            )
    result: dict[str, Any] = {f"{kind.name}_answer_rows": len(answers[""])}
    result |= _turns(kind, asked, questions, 1, WARM_UP, say)
    quick = {
        who: peer
        for who, peer in asked.items()
        if result[f"{_prefix(kind, who)}_p50_ms"] < _TOO_SLOW_MS
    }
    return result | _turns(kind, quick, questions, _CLIENTS, WARM_UP + kind.most, say)


def _turns(
    kind: Kind,
    peers: Mapping[str, Peer],
    questions: Mapping[str, list[Any]],
    clients: int,
    first: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Figures of the questions from `first` on, each asked once of each peer."""
    latencies: dict[str, list[float]] = {who: [] for who in peers}
    seconds = dict.fromkeys(peers, 0.0)
    most = (kind.most if clients == 1 else kind.most_16) // _ROUNDS
    for number in range(_ROUNDS):
        for who, peer in peers.items():
            own = questions[who][first + number * most :][:most]
            done = peer.ask(own, clients=clients, most=most, seconds=kind.seconds / _ROUNDS)
            latencies[who] += done.latencies_ms
            seconds[who] += done.seconds
    result: dict[str, Any] = {}
    for who, times in latencies.items():
        prefix = _prefix(kind, who) + ("" if clients == 1 else f"_{clients}_clients")
        result |= percentiles(prefix, times)
        result[f"{prefix}_queries_per_second"] = round(len(times) / seconds[who], 1)
        say(f"{prefix}: p50 {result[f'{prefix}_p50_ms']} ms, p99 {result[f'{prefix}_p99_ms']} ms,"
            f" {result[f'{prefix}_queries_per_second']} queries/s of {len(times)}")  # fmt: skip
    return result


def _prefix(kind: Kind, who: str) -> str:
    return f"{kind.name}_{who}" if who else kind.name


def _ratios(result: Mapping[str, Any], classes: list[Kind]) -> dict[str, float]:
    """How many times as long the peers take as serving does, at the median of one client."""
    found = {}
    for kind in classes:
        for who in kind.peers:
            theirs = result.get(f"{kind.name}_{who}_p50_ms")
            if theirs is not None:
                found[f"{kind.name}_vs_{who}_ratio"] = round(
                    theirs / result[f"{kind.name}_p50_ms"], 2
                )
    raw, rolled = result["rollup_raw_p50_ms"], result["rollup_p50_ms"]
    return found | {"rollup_vs_raw_ratio": round(raw / rolled, 1)}
