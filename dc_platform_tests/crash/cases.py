"""The matrix: for each point, how a process gets there, and how often it is killed.

A seed decides the records, their partitions, which time at the point it is, and what Kafka deletes.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dc_platform.backup.store import Backups
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import next_offset
from dc_platform.points import Point
from dc_platform_tests.crash.gateway import killed_gateway
from dc_platform_tests.crash.replay import killed_replay
from dc_platform_tests.crash.scene import Scene
from dc_platform_tests.helpers.gold import expected, gold

SEEDS = range(3)
RECORDS = 4_500
_MOST_COMMITS = 300
_GOLD = ["dc_platform.cli.main", "gold", "build"]
_PROCESS = ["dc_platform_tests.crash.process"]
_DCP = ["dc_platform.cli.main"]


class Case(NamedTuple):
    """One line of the matrix with one seed."""

    name: str
    seed: int
    play: Callable[[Scene, int], None]

    @property
    def id(self) -> str:
        """As pytest shows it."""
        return f"{self.name}-{self.seed}".replace(" ", "-")


def cases() -> Iterator[Case]:
    """All of them."""
    for name, play in [*_single(), *_several()]:
        for seed in SEEDS:
            yield Case(name, seed, play)


def _single() -> Iterator[tuple[str, Callable[[Scene, int], None]]]:
    """Each point once."""
    ways = {
        "gateway": killed_gateway,
        "landing run": _run,
        "backfill": _backfill,
        "replay": killed_replay,
        "restore": _restore,
        "backup": _backup,
        "gold": _gold,
        "search": _search,
    }
    special = {
        Point.BEFORE_GAPS: _gaps,
        Point.GAPS_RECORDED: _gaps,
        Point.BRONZE_READ: _replay,
        Point.MERGED_WRITTEN: _merge,
        Point.MERGED_COMMITTED: _merge,
        Point.LAKE_COPIED: _lost_lake,
        Point.LAKE_RESTORED: _lost_lake,
    }
    for point in Point:
        if point.part in ("deletion", "tiers"):
            # What is deleted is not what was acknowledged: retention/test_killed.py.
            continue
        way = special.get(point) or ways.get(point.part, _land)
        yield point.value, lambda scene, seed, way=way, point=point: way(scene, seed, point)


def _several() -> Iterator[tuple[str, Callable[[Scene, int], None]]]:
    """Killed again while recovering."""
    for first, second in (
        (Point.AFTER_BRONZE, Point.SILVER_WRITTEN),
        (Point.BRONZE_WRITTEN, Point.POLLED),
        (Point.AFTER_QUARANTINE, Point.AFTER_BRONZE),
        (Point.SILVER_COMMITTED, Point.BEFORE_BRONZE),
        (Point.SILVER_WRITTEN, Point.SILVER_WRITTEN),
    ):
        name = f"{first.value}, then {second.value}"
        yield name, lambda scene, seed, both=(first, second): _twice(scene, seed, both)


def _land(scene: Scene, seed: int, point: Point) -> None:
    scene.send(RECORDS)
    scene.land_killed(point, 1 + seed)
    scene.send(50)
    scene.land()


def _twice(scene: Scene, seed: int, points: tuple[Point, Point]) -> None:
    scene.send(RECORDS)
    scene.land_killed(points[0], 1 + seed)
    scene.send(50)
    scene.land_killed(points[1])
    scene.land()


def _gaps(scene: Scene, seed: int, point: Point) -> None:
    """Kafka deletes what had not landed: of a topic that is new to landing, or of one that is not."""
    if seed:
        scene.send(200)
        scene.land()
    done = _next_offsets(scene, SILVER_EVENTS)
    scene.send(400)
    scene.delete_before({p: offset + scene.chance.randint(5, 40) for p, offset in done.items()})
    scene.land_killed(point)
    scene.land()


def _replay(scene: Scene, seed: int, point: Point) -> None:
    """Kafka deletes what only bronze has; the run that brings it back is killed, too."""
    scene.send(RECORDS // 2)
    scene.land_killed(Point.AFTER_BRONZE, 1 + seed % 2)
    scene.delete_before(_next_offsets(scene, BRONZE_EVENTS))
    scene.land_killed(point)
    scene.land_killed(Point.SILVER_WRITTEN)
    scene.land()


def _next_offsets(scene: Scene, spec: object) -> dict[int, int]:
    if not scene.lake.exists(spec):  # type: ignore[arg-type]
        return dict.fromkeys(range(scene.info.partitions), 0)
    table = LakeTable(scene.lake, spec)  # type: ignore[arg-type]
    return {p: next_offset(table, scene.info, p) or 0 for p in range(scene.info.partitions)}


def _run(scene: Scene, seed: int, point: Point) -> None:
    """A landing run and its successor, which finds the lease of a dead one, or none."""
    scene.send(300)
    first = scene.start([*_PROCESS, "run", "first"], {"DCP_CRASH_AT": str(point)})
    if point is not Point.LEASE_TAKEN:
        scene.wait_until_landed()
        first.terminate()
    scene.wait(first, -signal.SIGKILL)
    scene.send(100)
    second = scene.start([*_PROCESS, "run", "second"], {})
    scene.wait_until_landed()
    second.terminate()
    scene.wait(second, 0)


def _merge(scene: Scene, seed: int, point: Point) -> None:
    """A run that commits often, and makes one file of many; its successor goes on with both."""
    often = {"DCP_LANDING_FRESHNESS_SECONDS": "0.05"}
    fatal = {**often, "DCP_CRASH_AT": f"{point}:{1 + seed}"}
    first = scene.start([*_PROCESS, "run", "first"], fatal)
    for _ in range(_MOST_COMMITS):
        scene.send(20)
        if first.exitcode is not None:
            break
    scene.wait(first, -signal.SIGKILL)
    second = scene.start([*_PROCESS, "run", "second"], often)
    for _ in range(40):
        scene.send(20)
    scene.wait_until_landed()
    second.terminate()
    scene.wait(second, 0)


def _gold(scene: Scene, seed: int, point: Point) -> None:
    """Gold of what landed, and of what landed after the kill."""
    scene.send(500)
    scene.land()
    nth = 1 if point is Point.GOLD_BUILT else 1 + seed
    scene.expect(_GOLD, -signal.SIGKILL, {"DCP_CRASH_AT": f"{point}:{nth}"})
    scene.send(50)
    scene.land()
    scene.expect(_GOLD, 0)
    assert gold(scene.lake) == expected(scene.lake)


def _backfill(scene: Scene, seed: int, point: Point) -> None:
    """Silver of today is lost, and built anew from bronze."""
    scene.send(500)
    scene.land()
    days = {datetime.now(UTC).date()}
    silver = LakeTable(scene.lake, SILVER_EVENTS)
    days |= {datetime.fromisoformat(day).date() for day in silver.snapshot().rows_by_partition()}
    for day in sorted(days):
        silver.replace(day, [], metadata={})
    today = max(days).isoformat()
    scene.expect([*_PROCESS, "backfill", today], -signal.SIGKILL, {"DCP_CRASH_AT": str(point)})
    for day in sorted(days):
        scene.expect([*_PROCESS, "backfill", day.isoformat()], 0)
    scene.send(50)
    scene.land()


def _restore(scene: Scene, seed: int, point: Point) -> None:
    """Silver as it was, twice; of what came after Kafka has all, a part, or nothing any more."""
    scene.send(300)
    scene.land()
    then = LakeTable(scene.lake, SILVER_EVENTS).version
    scene.send(300)
    scene.land()
    ends = _next_offsets(scene, BRONZE_EVENTS)
    if seed:
        scene.delete_before({p: end // seed for p, end in ends.items()})
    restore = [*_DCP, "restore", "--to", str(then)]
    scene.expect(restore, -signal.SIGKILL, {"DCP_CRASH_AT": str(point)})
    if seed == 1:
        scene.send(20)
        scene.land()
    scene.expect(restore, 0)
    scene.send(50)
    scene.land()


def _backup(scene: Scene, seed: int, point: Point) -> None:
    """A backup that was killed, and another that an empty lake is filled from."""
    backups = _backups(scene)
    scene.send(300)
    scene.land()
    create = [*_DCP, "backup", "create"]
    scene.expect(create, -signal.SIGKILL, {**backups, "DCP_CRASH_AT": str(point)})
    time.sleep(1.1)
    scene.expect(create, 0, backups)
    _lose_and_fill(scene, {})


def _lost_lake(scene: Scene, seed: int, point: Point) -> None:
    """The lake is lost, and filled from a backup by a process that is killed."""
    scene.send(300)
    scene.land()
    scene.expect([*_DCP, "backup", "create"], 0, _backups(scene))
    scene.send(200)
    scene.land()
    _lose_and_fill(scene, {"DCP_CRASH_AT": str(point)})


def _lose_and_fill(scene: Scene, killed: dict[str, str]) -> None:
    backups = _backups(scene)
    name = Backups(Path(backups["DCP_BACKUP_URI"])).list()[0].name
    scene.expect([*_DCP, "backup", "verify", name], 0, backups)
    shutil.rmtree(scene.lake.uri)
    restore = [*_DCP, "restore", "--to", name]
    if killed:
        scene.expect(restore, -signal.SIGKILL, {**backups, **killed})
    scene.expect(restore, 0, backups)
    scene.send(50)
    scene.land()


def _backups(scene: Scene) -> dict[str, str]:
    return {"DCP_BACKUP_URI": str(scene.directory / "backups")}


def _search(scene: Scene, seed: int, point: Point) -> None:
    """A build of the search index, the first one or a later one; the next says whether what it finds is
    true, and has everything.
    """
    build = [*_PROCESS, "search", "events"]
    scene.send(300)
    scene.land()
    if seed:
        scene.expect(build, 0)
        scene.send(200)
        scene.land()
    scene.expect(build, -signal.SIGKILL, {"DCP_CRASH_AT": str(point)})
    scene.send(50)
    scene.land()
    scene.expect(build, 0)
