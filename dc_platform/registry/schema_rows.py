"""Rows of schemas and of their versions, within a transaction of the caller's."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dc_platform.contracts.evolution import Compatibility, breaks
from dc_platform.contracts.schema import (
    Definition,
    SchemaConflictError,
    content_of,
    definition_of,
)
from dc_platform.contracts.schema_check import Checker
from dc_platform.registry.database import iso_time, now_ms
from dc_platform.registry.models import SchemaRow, SchemaVersionRow

# What changes counts for records from a moment on at which everybody can read of it. Otherwise a
# record that arrives while it is being written is judged one way now and another way in a backfill.
SETTLE_MS = 1000


class SchemaVersion(NamedTuple):
    """One version of a schema, with what its versions have in common. `event_type` "": all types."""

    schema_id: str
    tenant_id: str
    name: str
    event_type: str
    compatibility: Compatibility
    version: int
    definition: Definition
    created_ms: int
    created_by: str

    def as_json(self) -> dict[str, Any]:
        """A Schema (design 3.3) as the API shows it."""
        return {
            "schemaId": self.schema_id,
            "name": self.name,
            "eventType": self.event_type or None,
            "compatibility": self.compatibility.value,
            "version": str(self.version),
            **content_of(self.definition),
            "createdAt": iso_time(self.created_ms),
            "createdBy": self.created_by,
        }


def checked(content: Mapping[str, Any]) -> Definition:
    """A definition whose patterns can be compiled; raises SchemaError."""
    definition = definition_of(dict(content))
    Checker("", 0, "", definition)
    return definition


def create(
    session: Session,
    tenant_id: str,
    name: str,
    kind: tuple[str, Compatibility],
    definition: Definition,
    by: str,
) -> SchemaVersion:
    """A new schema with version 1; `kind` is its event type ("": all) and its mode."""
    event_type, compatibility = kind
    at = now_ms()
    row = SchemaRow(
        schema_id=str(uuid.uuid4()),
        tenant_id=tenant_id,
        name=name,
        event_type=event_type,
        compatibility=compatibility.value,
        created_ms=at,
    )
    # Whoever is bound to it is bound later: the binding says from when on it counts.
    first = _version_row(row, 1, definition, by, from_ms=0)
    session.add_all([row, first])
    session.flush()
    return joined(row, first)


def add_version(session: Session, row: SchemaRow, definition: Definition, by: str) -> SchemaVersion:
    """The next version; raises SchemaConflictError when the mode forbids it."""
    last = newest(session, row)
    mode = Compatibility(row.compatibility)
    problems = breaks(last.definition, definition, mode)
    if problems:
        raise SchemaConflictError(
            f"the new version of schema {row.name!r} is not {mode} compatible with version"
            f" {last.version}: {'; '.join(problems)}. For another meaning make a schema of its own"
            " and bind the source to it."
        )
    added = _version_row(row, last.version + 1, definition, by, from_ms=now_ms() + SETTLE_MS)
    session.add(added)
    session.flush()
    return joined(row, added)


def _version_row(
    row: SchemaRow, version: int, definition: Definition, by: str, *, from_ms: int
) -> SchemaVersionRow:
    return SchemaVersionRow(
        schema_id=row.schema_id,
        version=version,
        content=content_of(definition),
        from_ms=from_ms,
        created_ms=now_ms(),
        created_by=by,
    )


def living(session: Session, tenant_id: str, schema_id: str) -> SchemaRow | None:
    """A schema of the tenant that is not deleted."""
    row = session.get(SchemaRow, schema_id.lower())
    if row is None or row.deleted_ms is not None or row.tenant_id != tenant_id:
        return None
    return row


def by_name(session: Session, tenant_id: str, name: str) -> SchemaRow | None:
    """The schema of that name that is not deleted."""
    query = select(SchemaRow).where(
        SchemaRow.tenant_id == tenant_id, SchemaRow.name == name, SchemaRow.deleted_ms.is_(None)
    )
    return session.scalars(query).first()


def version_in(session: Session, row: SchemaRow, version: int | None) -> SchemaVersion | None:
    """A version, by default the newest."""
    query = select(SchemaVersionRow).where(SchemaVersionRow.schema_id == row.schema_id)
    if version is not None:
        query = query.where(SchemaVersionRow.version == version)
    found = session.scalars(query.order_by(SchemaVersionRow.version.desc()).limit(1)).first()
    return None if found is None else joined(row, found)


def newest(session: Session, row: SchemaRow) -> SchemaVersion:
    """The newest version."""
    found = version_in(session, row, None)
    assert found is not None, f"schema {row.schema_id} has no version"
    return found


def versions_of(session: Session, row: SchemaRow) -> list[SchemaVersion]:
    """All versions, oldest first."""
    query = select(SchemaVersionRow).where(SchemaVersionRow.schema_id == row.schema_id)
    found = session.scalars(query.order_by(SchemaVersionRow.version))
    return [joined(row, version) for version in found]


def joined(row: SchemaRow, version: SchemaVersionRow) -> SchemaVersion:
    """A version with what its schema says of all."""
    return SchemaVersion(
        schema_id=row.schema_id,
        tenant_id=row.tenant_id,
        name=row.name,
        event_type=row.event_type,
        compatibility=Compatibility(row.compatibility),
        version=version.version,
        definition=definition_of(version.content),
        created_ms=version.created_ms,
        created_by=version.created_by,
    )
