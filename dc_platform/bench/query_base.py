"""What `dcp bench query` keeps from run to run: the lake of 30 days and its gold."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from dc_platform.bench import query_lake
from dc_platform.bench.measure import run_child
from dc_platform.bench.query_lake import DAY_MS
from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.settings import Settings

_GOLD_LIMIT_SECONDS = 3_600.0


@dataclass(frozen=True)
class Base:
    """A lake that is built. Bytes are those of silver's and gold.events_hourly's live files."""

    wanted_events: int
    recipe: str
    events: int
    end_ms: int
    lake_seconds: float
    silver_bytes: int
    silver_files: int
    gold_seconds: float
    gold_rows: int
    gold_bytes: int


def base_lake(directory: Path, events: int, say: Callable[[str], None]) -> tuple[Base, bool]:
    """The lake in `directory`, and whether it was there already; one that does not fit is made anew."""
    manifest = directory / "lake.json"
    if manifest.exists():
        base = Base(**json.loads(manifest.read_text()))
        if (base.wanted_events, base.recipe) == (events, _recipe()):
            return base, True
    for left in (manifest, directory / "lake", directory / "clickhouse"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    base = _build(directory, events, say)
    manifest.write_text(json.dumps(asdict(base)))
    return base, False


def _recipe() -> str:
    """Changes with the rows that are made."""
    return hashlib.sha256(query_lake.ROWS.encode()).hexdigest()[:16]


def _build(directory: Path, events: int, say: Callable[[str], None]) -> Base:
    end_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
    lake = Lake(str(directory / "lake"))
    begun, told = time.monotonic(), 0.0

    def progress(rows: int) -> None:
        nonlocal told
        if time.monotonic() - told > 15:
            told = time.monotonic()
            say(f"lake: {rows:,} of {events:,} events")

    settings = Settings(data_dir=directory / "data")
    written = query_lake.build(lake, settings, events, end_ms=end_ms, progress=progress)
    lake_seconds = time.monotonic() - begun
    say(f"lake: built in {lake_seconds:.0f} s; gold")
    gold = build_gold(directory)
    silver = LakeTable(lake, SILVER_EVENTS).snapshot()
    hourly = LakeTable(lake, EVENTS_HOURLY).snapshot()
    return Base(
        events, _recipe(), written, end_ms, round(lake_seconds, 1),
        silver.bytes, len(silver.paths), round(gold, 1), hourly.rows, hourly.bytes,
    )  # fmt: skip


def build_gold(directory: Path) -> float:
    """Seconds that dbt's tables of gold take of the lake in `directory`."""
    cost = run_child(
        [
            *(sys.executable, "-m", "dc_platform.bench.query_gold"),
            *(str(directory / "lake"), str(directory / "data" / "gold")),
        ],
        environment={},
        log=directory / "gold.log",
        limit_seconds=_GOLD_LIMIT_SECONDS,
    )
    return cost.wall_seconds
