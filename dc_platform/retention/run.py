"""A run of retention: floors first, then every deletion that is not done, the oldest first.

The same run is made by Dagster (`ops/retention`), by `dcp retention run` and, for one deletion, by
`dcp retention delete-person`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from dc_platform.contracts.floors import Floor, Floors
from dc_platform.errors import RetriableError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.points import Reached, armed
from dc_platform.registry.database import now_ms
from dc_platform.registry.retention import Deletion, Kind, Policy, Retention, floors_of
from dc_platform.retention.conditions import SPECS, Conditions, below_floors, of_person
from dc_platform.retention.deletion import Deletions, Outcome
from dc_platform.retention.erase import matches
from dc_platform.retention.person import kafka_ends, kept_of, not_landed
from dc_platform.retention.plan import Planned, plan, prices_of, standing, with_policy
from dc_platform.retention.tiers import Borders, Moved, Tier, Tiers
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
        self._clock = clock
        self._reached = reached or armed(settings.crash_at)
        self.lake = Lake(settings.lake)
        self.deletions = Deletions(
            self.lake,
            retention,
            log_commits=settings.log_commits,
            beside=[settings.data_dir.absolute() / "tail"],
            clock=clock,
            reached=self._reached,
        )

    def run(self, *, who: str, at_once: bool = False) -> list[Outcome]:
        """Raise the floors, and carry out what is pending and what they make due."""
        floors: defaultdict[str, list[Floor]] = defaultdict(list)
        for floor in self._retention.raise_floors().in_force(now_ms()):
            floors[floor.tenant_id].append(floor)
        pending = self._retention.pending()
        for tenant_id, mine in floors.items():
            if self._is_due(mine) and not any(_covers(d, mine) for d in pending):
                predicate = {"floors": [_as_json(floor) for floor in mine]}
                request = self._retention.request
                pending.append(
                    request(Kind.RETENTION, tenant_id, predicate, who=who, at_once=at_once)
                )
        return [self._tried(deletion) for deletion in pending]

    def _tried(self, deletion: Deletion) -> Outcome:
        """One deletion; an error that may pass keeps no other from being carried out."""
        try:
            return self.carry_out(deletion)
        except RetriableError as error:
            log.warning("deletion %s: %s", deletion.deletion_id, error)
            return Outcome(deletion, {}, 0, None, str(error))

    def plan(self, more: Policy | None = None, tenant_id: str | None = None) -> list[Planned]:
        """What the next run would delete (of a tenant, or of all) and move; `more`: as if that policy
        had been set, too.
        """
        policies = self._retention.policies()
        if more is not None:
            policies = with_policy(policies, more)
        at = now_ms()
        known = [floor._replace(from_ms=at) for floor in self._retention.floors().in_force(at)]
        floors = [
            floor
            for floor in Floors([*known, *floors_of(policies, at, from_ms=at)]).in_force(at)
            if tenant_id in (None, floor.tenant_id)
        ]
        return plan(
            self.lake,
            floors,
            self.deletions.stubs(),
            Borders.of(self._settings, policies),
            prices_of(self._settings),
            self._clock(),
        )

    def standing(self) -> list[dict[str, Any]]:
        """What lies in each tier now, and what it costs a month."""
        return standing(self.lake, prices_of(self._settings))

    def move(self) -> list[Moved]:
        """Move old files to their tiers."""
        settings = self._settings
        tiers = Tiers(
            self.lake,
            Borders.of(settings, self._retention.policies()),
            levels={Tier.WARM: settings.tier_warm_level, Tier.COLD: settings.tier_cold_level},
            file_bytes=settings.compaction_file_mb * 2**20,
            reached=self._reached,
        )
        with self.deletions.lock:
            return tiers.run(self._clock())

    def _is_due(self, floors: list[Floor]) -> bool:
        conditions, stubs = below_floors(floors), self.deletions.stubs()
        return any(
            match.gone
            for spec in SPECS
            for match in matches(LakeTable(self.lake, spec), conditions, stubs)
        )

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
            landed=not_landed(self._settings, self.lake, deletion.predicate["ends"]),
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
