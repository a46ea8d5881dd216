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
from typing import Any

from dc_platform.bench import query_lake
from dc_platform.bench.measure import run_child
from dc_platform.bench.query_lake import DAY_MS
from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.origins import FOLDER
from dc_platform.lake.parquet import KEPT_GROUP_ROWS
from dc_platform.lake.payload_index import SUFFIX, PayloadIndex
from dc_platform.lake.rewrite import ORDER
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.retention.tiers import WARM_ORDER
from dc_platform.settings import Settings

_GOLD_LIMIT_SECONDS = 3_600.0
_TELL_SECONDS = 15.0


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
    gold_recipe: str
    gold_seconds: float
    gold_rows: int
    gold_bytes: int


def base_lake(directory: Path, events: int, say: Callable[[str], None]) -> tuple[Base, bool]:
    """The lake in `directory`, and whether it was there already; one that does not fit is made anew,
    one whose gold is missing, or laid out in another way, gets it.
    """
    wanted = {"wanted_events": events, "recipe": _recipe()}
    gold_recipe = _hash(EVENTS_HOURLY.order)
    silver, whole = directory / "silver.json", directory / "lake.json"
    for manifest, fits in ((silver, wanted), (whole, wanted | {"gold_recipe": gold_recipe})):
        if manifest.exists() and not fits.items() <= json.loads(manifest.read_text()).items():
            manifest.unlink()
    if whole.exists():
        return Base(**json.loads(whole.read_text())), True
    if not silver.exists():
        for left in ("lake", "clickhouse", "data"):
            shutil.rmtree(directory / left, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        silver.write_text(json.dumps(wanted | _build(directory, events, say)))
    say("gold")
    for left in ("lake/gold", "data/gold"):
        shutil.rmtree(directory / left, ignore_errors=True)
    seconds = build_gold(directory)
    hourly = LakeTable(Lake(str(directory / "lake")), EVENTS_HOURLY).snapshot()
    base = Base(
        **json.loads(silver.read_text()),
        gold_recipe=gold_recipe,
        gold_seconds=round(seconds, 1),
        gold_rows=hourly.rows,
        gold_bytes=hourly.bytes,
    )
    whole.write_text(json.dumps(asdict(base)))
    return base, False


def _recipe() -> str:
    """Changes with the rows, with how files are laid out and with what the log says of them."""
    layout = (query_lake.ROWS, KEPT_GROUP_ROWS, ORDER, WARM_ORDER, SILVER_EVENTS.statistics)
    return _hash(layout)


def _hash(layout: object) -> str:
    return hashlib.sha256(repr(layout).encode()).hexdigest()[:16]


def _build(directory: Path, events: int, say: Callable[[str], None]) -> dict[str, Any]:
    end_ms = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS
    lake = Lake(str(directory / "lake"))
    begun, told = time.monotonic(), 0.0

    def progress(rows: int) -> None:
        nonlocal told
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            say(f"lake: {rows:,} of {events:,} events")

    settings = Settings(data_dir=directory / "data")
    written = query_lake.build(lake, settings, events, end_ms=end_ms, progress=progress)
    seconds = time.monotonic() - begun
    say(f"lake: built in {seconds:.0f} s")
    snapshot = LakeTable(lake, SILVER_EVENTS).snapshot()
    return {
        "events": written,
        "end_ms": end_ms,
        "lake_seconds": round(seconds, 1),
        "silver_bytes": snapshot.bytes,
        "silver_files": len(snapshot.paths),
    }


def index_lake(directory: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Index silver's payload fields where they are not; figures for the result."""
    lake = Lake(str(directory / "lake"))
    index = PayloadIndex(lake, Settings().index_fields)
    live = LakeTable(lake, SILVER_EVENTS).snapshot().actions["path"].to_pylist()
    begun = time.monotonic()
    lacking = index.lacking(live)
    for number, path in enumerate(lacking):
        if number % 50 == 0:
            say(f"index: {number:,} of {len(lacking):,} files")
        index.build(path)
    kept = [e.size for e in lake.listing(SILVER_EVENTS, FOLDER) if e.path.endswith(SUFFIX)]
    return {
        "index_files_built": len(lacking),
        "index_build_seconds": round(time.monotonic() - begun, 1),
        "index_bytes": sum(kept),
    }


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
