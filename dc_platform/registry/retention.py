"""Retention policies (design 4.5), floors, and the deletions that were asked for.

A policy says how long events of a type are kept. The floors say what has been deleted: they are
appended before anything is deleted, and never go back, whatever becomes of the policies.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import select, update

from dc_platform.contracts.floors import EVERY_TYPE, Floor, Floors
from dc_platform.registry.database import Database, now_ms
from dc_platform.registry.models import DeletionRow, FloorRow, PolicyRow

_DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
# A floor is in force from a moment on at which everybody can read of it: a record that arrives while it
# is being written would be judged one way now and another way in a backfill.
_SETTLE_MS = 1000


class Policy(NamedTuple):
    """Events of `data_type` (`*`: every type without a policy of its own) are deleted after
    `retention_days`, and archived (the cold tier) after `archive_after_days`.
    """

    policy_id: str
    tenant_id: str
    data_type: str
    retention_days: int
    archive_after_days: int
    created_ms: int


class Kind(StrEnum):
    """Why something is deleted."""

    RETENTION = "retention"
    PERSON = "person"


class Deletion(NamedTuple):
    """A deletion that is under way or done. `at_once`: without regard for readers of older versions.
    `erased`: table → what the runs so far took from it.
    """

    deletion_id: str
    kind: Kind
    tenant_id: str
    who: str
    predicate: dict[str, Any]
    at_once: bool
    erased: dict[str, dict[str, int]]
    requested_ms: int
    deleted_ms: int | None
    finished_ms: int | None


class Retention:
    """Reads and writes policies, floors and deletions. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- policies ---

    def set_policy(
        self, tenant_id: str, data_type: str, *, retention_days: int, archive_after_days: int
    ) -> Policy:
        """A new policy, in place of the one that the data type had."""
        row = PolicyRow(
            policy_id=str(uuid.uuid4()),
            tenant_id=tenant_id,
            data_type=data_type,
            retention_days=retention_days,
            archive_after_days=archive_after_days,
            created_ms=now_ms(),
        )
        with self._database.change() as session:
            session.execute(
                update(PolicyRow)
                .where(
                    PolicyRow.tenant_id == tenant_id,
                    PolicyRow.data_type == data_type,
                    PolicyRow.ended_ms.is_(None),
                )
                .values(ended_ms=row.created_ms)
            )
            session.add(row)
            session.flush()
            return _policy(row)

    def policies(self, tenant_id: str | None = None) -> list[Policy]:
        """Those in force, of a tenant or of all, by data type."""
        query = select(PolicyRow).where(PolicyRow.ended_ms.is_(None))
        if tenant_id is not None:
            query = query.where(PolicyRow.tenant_id == tenant_id)
        with self._database.reading() as session:
            rows = session.scalars(query.order_by(PolicyRow.tenant_id, PolicyRow.data_type))
            return [_policy(row) for row in rows]

    def policy(self, policy_id: str) -> Policy | None:
        """One that is in force."""
        with self._database.reading() as session:
            row = session.get(PolicyRow, policy_id)
            return None if row is None or row.ended_ms is not None else _policy(row)

    def end_policy(self, policy_id: str) -> bool:
        """End a policy; False when it is not in force. What it has deleted stays deleted."""
        with self._database.change() as session:
            row = session.get(PolicyRow, policy_id)
            if row is None or row.ended_ms is not None:
                return False
            row.ended_ms = now_ms()
            return True

    # --- floors ---

    def floors(self) -> Floors:
        """The whole history."""
        return Floors(self._floors())

    def _floors(self) -> list[Floor]:
        with self._database.reading() as session:
            rows = session.scalars(select(FloorRow).order_by(FloorRow.number))
            return [
                Floor(r.tenant_id, r.data_type, frozenset(r.excepted), r.floor_ms, r.from_ms)
                for r in rows
            ]

    def raise_floors(self) -> Floors:
        """Append the floors that follow from the policies now, and give all that are in force by then;
        returns when they are.
        """
        at = now_ms()
        known = {f[:3]: f.floor_ms for f in self.floors().in_force(at + _SETTLE_MS)}
        higher = [
            floor
            for floor in floors_of(self.policies(), at, from_ms=at + _SETTLE_MS)
            if floor[:3] not in known or floor.floor_ms > known[floor[:3]]
        ]
        if higher:
            with self._database.change() as session:
                session.add_all(
                    FloorRow(**(floor._asdict() | {"excepted": sorted(floor.excepted)}))
                    for floor in higher
                )
            time.sleep(_SETTLE_MS / 1000)
        return self.floors()

    def version(self) -> int:
        """Grows with every change."""
        return self._database.version()

    # --- deletions ---

    def request(
        self,
        kind: Kind,
        tenant_id: str,
        predicate: Mapping[str, Any],
        *,
        who: str,
        at_once: bool = False,
    ) -> Deletion:
        """Ask for a deletion; whoever runs deletions finds it."""
        row = DeletionRow(
            deletion_id=str(uuid.uuid4()),
            kind=kind.value,
            tenant_id=tenant_id,
            who=who,
            predicate=dict(predicate),
            at_once=at_once,
            erased={},
            requested_ms=now_ms(),
        )
        with self._database.session() as session:
            session.add(row)
            session.flush()
            return _deletion(row)

    def pending(self) -> list[Deletion]:
        """Those that are not finished, the oldest first."""
        query = select(DeletionRow).where(DeletionRow.finished_ms.is_(None))
        with self._database.reading() as session:
            rows = session.scalars(query.order_by(DeletionRow.requested_ms))
            return [_deletion(row) for row in rows]

    def deletion(self, deletion_id: str) -> Deletion | None:
        """One of them."""
        with self._database.reading() as session:
            row = session.get(DeletionRow, deletion_id)
            return None if row is None else _deletion(row)

    def change_predicate(self, deletion_id: str, predicate: Mapping[str, Any]) -> None:
        """What the first run adds to it."""
        self._mark(deletion_id, predicate=dict(predicate))

    def erased(self, deletion_id: str, erased: Mapping[str, Mapping[str, int]]) -> None:
        """What was taken from each table so far."""
        self._mark(deletion_id, erased={name: dict(figures) for name, figures in erased.items()})

    def deleted(self, deletion_id: str) -> None:
        """The tables' newest versions no longer have it."""
        self._mark(deletion_id, deleted_ms=now_ms())

    def finished(self, deletion_id: str, predicate: Mapping[str, Any]) -> None:
        """No file has it any more; `predicate` is what may be kept of the predicate."""
        self._mark(deletion_id, finished_ms=now_ms(), predicate=dict(predicate))

    def _mark(self, deletion_id: str, **values: Any) -> None:
        with self._database.session() as session:
            session.execute(
                update(DeletionRow).where(DeletionRow.deletion_id == deletion_id).values(**values)
            )


class FloorHistory:
    """`KnownFloors` of the decoder, from the registry: as `SourceHistory` for sources."""

    _SKEW_SECONDS = 0.2

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._floors = Floors()
        self._read_ms = -1
        self._read_at = -math.inf

    def of(self, tenant_id: str, event_type: str, at_ms: int) -> int | None:
        """Before which time events of the type are too old at `at_ms`; None: never."""
        self._follow(at_ms)
        return self._floors.of(tenant_id, event_type, at_ms)

    def highest(self, at_ms: int) -> int | None:
        """No event from that time on is too old at `at_ms`; None: none is at all."""
        self._follow(at_ms)
        return self._floors.highest(at_ms)

    def _follow(self, at_ms: int) -> None:
        if at_ms < self._read_ms or time.monotonic() - self._read_at < self._SKEW_SECONDS:
            return
        self._read_ms, self._read_at = now_ms(), time.monotonic()
        self._floors = self._retention.floors()


def floors_of(policies: Iterable[Policy], at_ms: int, *, from_ms: int) -> list[Floor]:
    """What policies make of the time `at_ms`: whole hours, so that no hour of the aggregates is deleted
    in part.
    """
    by_tenant: defaultdict[str, list[Policy]] = defaultdict(list)
    for policy in policies:
        by_tenant[policy.tenant_id].append(policy)
    return [
        Floor(
            tenant_id,
            policy.data_type,
            frozenset(p.data_type for p in members if p.data_type != EVERY_TYPE)
            if policy.data_type == EVERY_TYPE
            else frozenset(),
            (at_ms - policy.retention_days * _DAY_MS) // _HOUR_MS * _HOUR_MS,
            from_ms,
        )
        for tenant_id, members in by_tenant.items()
        for policy in members
    ]


def _policy(row: PolicyRow) -> Policy:
    return Policy(
        row.policy_id,
        row.tenant_id,
        row.data_type,
        row.retention_days,
        row.archive_after_days,
        row.created_ms,
    )


def _deletion(row: DeletionRow) -> Deletion:
    return Deletion(
        row.deletion_id,
        Kind(row.kind),
        row.tenant_id,
        row.who,
        row.predicate,
        row.at_once,
        row.erased,
        row.requested_ms,
        row.deleted_ms,
        row.finished_ms,
    )
