"""Definitions of metrics, by tenant and name. Their versions are append-only."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dc_platform.contracts.metrics import AggregationType, DefinedMetric, Definition
from dc_platform.registry.database import Database, now_ms, version_of
from dc_platform.registry.models import MetricRow, MetricVersionRow


class MetricExistsError(ValueError):
    """There is a metric with this name already."""


class MetricChanges(NamedTuple):
    """What changed since a version of the registry, up to `version`.

    Rows of `changed` in gold.metrics_hourly have to be made anew, for all hours; those of `deleted`
    (metric ids) go.
    """

    version: int
    changed: list[DefinedMetric]
    deleted: list[str]


class Metrics:
    """Reads and writes definitions. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, definition: Definition, *, tenant_id: str = "default") -> DefinedMetric:
        """A new metric; raises MetricExistsError."""
        with self._database.change() as session:
            if _living(session, tenant_id, definition.name) is not None:
                raise MetricExistsError(
                    f"There is a metric {definition.name} already; PUT changes it."
                )
            row = MetricRow(
                metric_id=str(uuid.uuid4()),
                tenant_id=tenant_id,
                name=definition.name,
                version=0,
                created_ms=now_ms(),
            )
            session.add(row)
            return _next_version(session, row, definition)

    def change(self, definition: Definition, *, tenant_id: str = "default") -> DefinedMetric | None:
        """Another definition for the metric with its name; None when there is none. One that changes
        nothing makes no version.
        """
        with self._database.change() as session:
            row = _living(session, tenant_id, definition.name)
            if row is None:
                return None
            found = _defined(row, _version(session, row))
            if found.definition == definition:
                return found
            return _next_version(session, row, definition)

    def delete(self, name: str, *, tenant_id: str = "default") -> bool:
        """Delete a metric: its name is free again. False when there is none."""
        with self._database.change() as session:
            row = _living(session, tenant_id, name)
            if row is None:
                return False
            row.deleted_ms = now_ms()
            row.version += 1
            session.add(
                MetricVersionRow(
                    metric_id=row.metric_id,
                    version=row.version,
                    definition=None,
                    changed_at=version_of(session),
                    created_ms=row.deleted_ms,
                )
            )
            return True

    def get(self, name: str, *, tenant_id: str = "default") -> DefinedMetric | None:
        """A metric that is not deleted."""
        with self._database.reading() as session:
            row = _living(session, tenant_id, name)
            return None if row is None else _defined(row, _version(session, row))

    def list(self, tenant_id: str | None = None) -> list[DefinedMetric]:
        """All metrics that are not deleted, of one tenant or of all, by tenant and name."""
        query = select(MetricRow).where(MetricRow.deleted_ms.is_(None))
        if tenant_id is not None:
            query = query.where(MetricRow.tenant_id == tenant_id)
        with self._database.reading() as session:
            rows = session.scalars(query.order_by(MetricRow.tenant_id, MetricRow.name)).all()
            return [_defined(row, _version(session, row)) for row in rows]

    def changed_since(self, version: int) -> MetricChanges:
        """What changed after a version of the registry (0: everything), as it is now. Ask next time
        with the version that it gives.
        """
        changed = select(MetricVersionRow.metric_id).where(MetricVersionRow.changed_at > version)
        query = select(MetricRow).where(MetricRow.metric_id.in_(changed))
        with self._database.reading() as session:
            # Read first: what is committed meanwhile is in the rows, and again the next time.
            now = version_of(session)
            rows = session.scalars(query.order_by(MetricRow.tenant_id, MetricRow.name)).all()
            living = [row for row in rows if row.deleted_ms is None]
            return MetricChanges(
                now,
                [_defined(row, _version(session, row)) for row in living],
                sorted(row.metric_id for row in rows if row.deleted_ms is not None),
            )


def _living(session: Session, tenant_id: str, name: str) -> MetricRow | None:
    return session.scalars(
        select(MetricRow).where(
            MetricRow.tenant_id == tenant_id,
            MetricRow.name == name,
            MetricRow.deleted_ms.is_(None),
        )
    ).one_or_none()


def _version(session: Session, row: MetricRow) -> MetricVersionRow:
    found = session.get(MetricVersionRow, (row.metric_id, row.version))
    assert found is not None
    return found


def _next_version(session: Session, row: MetricRow, definition: Definition) -> DefinedMetric:
    row.version += 1
    version = MetricVersionRow(
        metric_id=row.metric_id,
        version=row.version,
        definition={
            "aggregationType": definition.aggregation_type.value,
            "field": definition.field,
            "eventType": definition.event_type,
            "dimensions": list(definition.dimensions),
        },
        changed_at=version_of(session),
        created_ms=now_ms(),
    )
    session.add(version)
    return _defined(row, version)


def _defined(row: MetricRow, version: MetricVersionRow) -> DefinedMetric:
    stored = version.definition
    assert stored is not None
    definition = Definition(
        row.name,
        AggregationType(stored["aggregationType"]),
        stored["field"],
        stored["eventType"],
        tuple(stored["dimensions"]),
    )
    return DefinedMetric(
        metric_id=row.metric_id,
        tenant_id=row.tenant_id,
        version=version.version,
        changed_at=version.changed_at,
        created_ms=row.created_ms,
        definition=definition,
    )
