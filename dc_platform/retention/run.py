"""A run of retention: floors first, then every deletion that is not done, the oldest first.

The same run is made by Dagster (`ops/retention`), by `dcp retention run` and, for one deletion, by
`dcp retention delete-person`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dc_platform.contracts.floors import Floor
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.points import Reached, armed
from dc_platform.registry.database import now_ms
from dc_platform.registry.retention import Deletion, Kind, Retention
from dc_platform.retention.conditions import SPECS, Conditions, below_floors, of_person
from dc_platform.retention.deletion import Deletions, Outcome
from dc_platform.retention.erase import matches
from dc_platform.retention.person import kafka_ends, kept_of, not_landed
from dc_platform.settings import Settings

log = logging.getLogger(__name__)


class RetentionRun:
    """Deletes what is due in the lake of the settings."""

    def __init__(
        self,
        settings: Settings,
        retention: Retention,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Reached | None = None,
    ) -> None:
        self._settings = settings
        self._retention = retention
        self.lake = Lake(settings.lake)
        self.deletions = Deletions(
            self.lake,
            retention,
            log_commits=settings.log_commits,
            beside=[settings.data_dir.absolute() / "tail"],
            clock=clock,
            reached=reached or armed(settings.crash_at),
        )

    def run(self, *, who: str, at_once: bool = False) -> list[Outcome]:
        """Raise the floors, and carry out what is pending and what they make due."""
        floors = self._retention.raise_floors().in_force(now_ms())
        pending = self._retention.pending()
        if self._is_due(floors) and not any(_covers(d, floors) for d in pending):
            predicate = {"floors": [_as_json(floor) for floor in floors]}
            request = self._retention.request
            pending.append(request(Kind.RETENTION, "*", predicate, who=who, at_once=at_once))
        return [self.carry_out(deletion) for deletion in pending]

    def _is_due(self, floors: list[Floor]) -> bool:
        conditions, stubs = below_floors(floors), self.deletions.stubs()
        return any(matches(LakeTable(self.lake, spec), conditions, stubs) for spec in SPECS)

    def carry_out(self, deletion: Deletion) -> Outcome:
        """One deletion, as far as it comes now."""
        if deletion.kind is Kind.RETENTION:
            predicate = deletion.predicate
            return self.deletions.carry_out(
                deletion, conditions_of(deletion), kept_predicate=predicate
            )
        if "ends" not in deletion.predicate:
            predicate = {**deletion.predicate, "ends": kafka_ends(self._settings)}
            self._retention.change_predicate(deletion.deletion_id, predicate)
            deletion = deletion._replace(predicate=predicate)
        return self.deletions.carry_out(
            deletion,
            conditions_of(deletion),
            kept_predicate=kept_of(deletion),
            value=deletion.predicate["value"],
            landed=not_landed(self.lake, deletion.predicate["ends"]),
        )


def conditions_of(deletion: Deletion) -> Conditions:
    """What a deletion that is not finished is about."""
    said = deletion.predicate
    if deletion.kind is Kind.RETENTION:
        return below_floors([_from_json(floor) for floor in said["floors"]])
    return of_person(deletion.tenant_id, said["field"], said["value"])


def _covers(deletion: Deletion, floors: list[Floor]) -> bool:
    """Whether a pending deletion deletes all that these floors make due."""
    return deletion.kind is Kind.RETENTION and deletion.predicate == {
        "floors": [_as_json(floor) for floor in floors]
    }


def _as_json(floor: Floor) -> list[Any]:
    return [floor.tenant_id, floor.data_type, sorted(floor.excepted), floor.floor_ms]


def _from_json(said: list[Any]) -> Floor:
    tenant_id, data_type, excepted, floor_ms = said
    return Floor(tenant_id, data_type, frozenset(excepted), floor_ms, 0)
