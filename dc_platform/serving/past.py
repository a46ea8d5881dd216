"""Time travel: the events that silver had at a version, for who asks as of then.

The tail is not part of it: the answer is what had landed. What was deleted since stays away. Its rows
are in the older version's files until these are removed, so a view of the past leaves out what has a
tombstone, what is older than the retention floors, and what a deletion that is not finished yet is
about; of a finished one it is proved that no file has it (docs/retention.md).
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from dc_platform.contracts.ops_tables import TOMBSTONES
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.past import check_files, snapshot_at, version_until
from dc_platform.lake.sql import sql_text, table_sql
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.registry.database import now_ms
from dc_platform.registry.retention import Retention
from dc_platform.retention.conditions import below_floors
from dc_platform.retention.run import conditions_of
from dc_platform.serving.conditions import microseconds
from dc_platform.serving.guard import At, RefusedError
from dc_platform.serving.view import View

# A smaller number is a version, a larger one a time in epoch milliseconds (from 1973 on).
_FIRST_TIME = 10**11
# Versions that are kept: a snapshot of 10,000 files takes 5 MB.
_KEPT = 8


def as_of(asked: int | str) -> At:
    """What somebody asks for: a version, epoch milliseconds or ISO 8601."""
    if isinstance(asked, str) and re.fullmatch(r"\d{1,18}", asked):
        asked = int(asked)
    if isinstance(asked, int) and asked < _FIRST_TIME:
        return At("VERSION", asked)
    return At("TIMESTAMP", asked)


class Past:
    """Views of silver as it was. Thread-safe."""

    def __init__(self, lake: Lake, retention: Retention) -> None:
        self._lake = lake
        self._retention = retention
        self._lock = threading.Lock()
        self._known: OrderedDict[int, Snapshot] = OrderedDict()

    def view(self, at: At, now: View, *, tenant_id: str) -> View:
        """The view as of a version or a time, without a tail, for one tenant; `now` is the newest.

        Raises NoSuchVersionError, which says how far back one can go, and QueryError.
        """
        version = self._version(at)
        snapshot = now.silver if version == now.silver.version else self._snapshot(version)
        check_files(self._lake, SILVER_EVENTS, snapshot, frozenset(now.silver.paths))
        return View(snapshot, {}, hidden=self._hidden(tenant_id))

    def _version(self, at: At) -> int:
        if at.unit == "VERSION":
            if not isinstance(at.value, int) or at.value < 0:
                raise RefusedError(f"A version is a whole number from 0 on, not {at.value!r}.")
            return at.value
        micros = microseconds("asOf", at.value)
        assert micros is not None
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
        return version_until(self._lake, SILVER_EVENTS, moment)

    def _snapshot(self, version: int) -> Snapshot:
        """A version never changes, so it is read once."""
        with self._lock:
            found = self._known.pop(version, None)
            if found is None:
                found = snapshot_at(self._lake, SILVER_EVENTS, version)
            self._known[version] = found
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return found

    def _hidden(self, tenant_id: str) -> str:
        """The rows that a tenant has deleted, or has asked to delete, as a condition."""
        floors = [
            f for f in self._retention.floors().in_force(now_ms()) if f.tenant_id == tenant_id
        ]
        pending = [d for d in self._retention.pending() if d.tenant_id == tenant_id]
        about = [below_floors(floors), *map(conditions_of, pending)]
        conditions = [f"({c})" for one in about if (c := one.of(SILVER_EVENTS)) is not None]
        # Read last: a deletion that finished meanwhile had written its tombstones before.
        self._lake.ensure(TOMBSTONES)
        tombstones = LakeTable(self._lake, TOMBSTONES).snapshot()
        if tombstones.paths:
            conditions.append(
                "(source_id, event_id) in (select source_id, event_id from"
                f" ({table_sql(TOMBSTONES, tombstones)}) where tenant_id = {sql_text(tenant_id)}"
                " and source_id is not null and event_id is not null)"
            )
        return " or ".join(conditions) or "false"
