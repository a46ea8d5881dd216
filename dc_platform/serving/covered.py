"""Which hours a table of gold has as silver has them, at the version of silver that a query pins.

Gold says with each commit which version of silver it covers. An hour is stale when a commit after that
version put rows of it into silver or took some away (`dataChange`: compaction does neither). Both logs
are followed here, from commit to commit, so a query asks memory. Of a file that came or went the hours
are those of its statistics where they lie within two hours, else its event times are read, once.

A version of gold that was built from a newer silver than the query's is not used: an hour of it may
have rows that the query finds in the tail.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.gold import GoldSpec
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import StoreUnavailableError
from dc_platform.gold.pending import covered_app, metrics_app
from dc_platform.gold.publish import COMMIT
from dc_platform.lake.balance import HOUR_US
from dc_platform.lake.changes import Changes, changes
from dc_platform.lake.parquet import read_batches
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot

log = logging.getLogger(__name__)

# How soon a newer version is found of which the log no longer has the first entries.
_REFRESH_SECONDS = 2.0
# Entries of silver's log that one query follows; of more it goes without gold.
_VERSIONS_AT_ONCE = 200
# Newest commits of gold that are looked through for what silver they were built from.
_COMMITS = 20


@dataclass(frozen=True)
class Covered:
    """A version of a table of gold. `covers`: version of silver; `built`: the newest one that a row of
    it may be of; `definitions`: version of the registry that its metrics are of; `stale`: epoch hours
    that silver has otherwise, in order.
    """

    spec: GoldSpec
    snapshot: Snapshot
    covers: int
    built: int
    definitions: int | None
    stale: tuple[int, ...] = ()


class Coverage:
    """Follows a table of gold, and silver since the version that it covers. Thread-safe."""

    def __init__(self, lake: Lake, spec: GoldSpec) -> None:
        self._lake = lake
        self._spec = spec
        self._lock = threading.Lock()
        # Of who looks for a newer version of gold.
        self._following = threading.Lock()
        self._table: LakeTable | None = None
        self._silver_id = ""
        self._newest: Covered | None = None
        self._read_at = -1
        self._used: Covered | None = None
        self._next_refresh = 0.0
        self._touched: _Touched | None = None

    def of(self, silver: Snapshot) -> Covered | None:
        """What gold has of this version of silver; None when nothing is known to be right."""
        try:
            # Who comes meanwhile does not wait for the disk: what gold had before is as right.
            if self._following.acquire(blocking=self._table is None):
                try:
                    self._follow_gold()
                finally:
                    self._following.release()
            with self._lock:
                return self._of(silver)
        except StoreUnavailableError as error:
            log.warning("queries go without %s: %s", self._spec.name, error)
            return None

    def _of(self, silver: Snapshot) -> Covered | None:
        newest = self._newest
        if newest is not None and newest.built <= silver.version:
            self._used = newest
        used = self._used
        if used is None or used.built > silver.version:
            return None
        if self._touched is None:
            self._touched = _Touched(self._lake, used.covers)
        if not self._touched.follow(silver):
            return None
        stale = self._touched.since(used.covers)
        return None if stale is None else _with(used, stale)

    def _follow_gold(self) -> None:
        now = time.monotonic()
        table = self._table
        if table is None:
            self._lake.ensure(self._spec)
            self._silver_id = LakeTable(self._lake, SILVER_EVENTS).id
            table = LakeTable(self._lake, self._spec)
            self._newest, self._read_at = self._read(table), table.version
            # From now on nobody waits.
            self._table = table
        elif now >= self._next_refresh or table.may_have_moved:
            if table.refresh() != self._read_at:
                self._newest, self._read_at = self._read(table), table.version
        else:
            return
        self._next_refresh = now + _REFRESH_SECONDS

    def _read(self, table: LakeTable) -> Covered | None:
        covers = table.txn(covered_app(SILVER_EVENTS, self._silver_id))
        built = self._built(table.version)
        if covers is None or built is None:
            return None
        definitions = table.txn(metrics_app(self._silver_id))
        return Covered(self._spec, table.snapshot(), covers, built, definitions)

    def _built(self, version: int) -> int | None:
        """Each commit is made of a silver that is not older than that of the one before."""
        for number in range(version, max(-1, version - _COMMITS), -1):
            content = self._lake.mapped(self._spec, f"_delta_log/{number:020}.json")
            for line in bytes(content or b"").splitlines():
                figures = json.loads(line).get("commitInfo", {}).get(COMMIT)
                if figures is not None:
                    return int(json.loads(figures)["silver_version"])
        return None


def _with(covered: Covered, stale: tuple[int, ...]) -> Covered:
    return replace(covered, stale=stale)


class _Touched:
    """Hour → newest version of silver that touched it, of the versions after `first`."""

    def __init__(self, lake: Lake, first: int) -> None:
        self._lake = lake
        self._first = self._until = first
        self._hours: dict[int, int] = {}
        # Up to here nobody knows which hours were touched.
        self._lost = -1

    def since(self, version: int) -> tuple[int, ...] | None:
        """The hours that were touched after a version; None when they are not known."""
        if version < max(self._lost, self._first):
            return None
        self._first = version
        self._hours = {hour: at for hour, at in self._hours.items() if at > version}
        return tuple(sorted(self._hours))

    def follow(self, silver: Snapshot) -> bool:
        """Whether all versions up to this one are followed now."""
        until = min(silver.version, self._until + _VERSIONS_AT_ONCE)
        if until > self._until:
            self._take(changes(self._lake, SILVER_EVENTS, self._until, until), until, silver)
            self._until = until
        return self._until >= silver.version

    def _take(self, found: Changes | None, version: int, silver: Snapshot) -> None:
        hours = None if found is None else self._hours_of(found, silver)
        if hours is None:
            self._lost = version
        else:
            self._hours |= dict.fromkeys(hours, version)

    def _hours_of(self, found: Changes, silver: Snapshot) -> set[int] | None:
        hours: set[int] = set()
        known = _narrow(silver, found.touched)
        for path in found.touched:
            if path in known:
                hours |= known[path]
                continue
            where: str | None = path
            while where is not None and not self._lake.has(SILVER_EVENTS, where):
                where = found.merged.get(where)
            if where is None:
                return None
            hours |= _hours_in(f"{self._lake.uri_of(SILVER_EVENTS)}/{where}")
        return hours


def _narrow(silver: Snapshot, paths: Iterable[str]) -> dict[str, set[int]]:
    """Of the live ones among the files the hours, where their statistics say them."""
    live = pc.is_in(silver.actions["path"], value_set=pa.array(sorted(paths), pa.string()))
    some = Snapshot(silver.version, silver.actions.filter(live), silver.root)
    low, high = (bound.cast(pa.int64()).to_pylist() for bound in some.bounds("event_time"))
    found = {}
    for path, first, last in zip(some.actions["path"].to_pylist(), low, high, strict=True):
        if first is not None and last is not None and last // HOUR_US - first // HOUR_US <= 1:
            found[path] = {first // HOUR_US, last // HOUR_US}
    return found


def _hours_in(path: str) -> set[int]:
    hours: set[int] = set()
    for batch in read_batches(path, ["event_time"]):
        micros = batch.column(0).cast(pa.int64()).to_numpy()
        hours |= set(np.unique(micros // HOUR_US).tolist())
    return hours
