"""Schemas: their versions, and which sources they judge. Everything is appended, nothing changed.

A version or a binding judges a gateway's events as soon as the gateway knows of it, and strangers'
records from a moment on at which every reader can know of it (`SETTLE_MS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import func, select

from dc_platform.contracts.blocks import REJECTED, VALID
from dc_platform.contracts.envelope import Rejected
from dc_platform.contracts.evolution import Compatibility, breaks, changes
from dc_platform.contracts.schema import Definition, SchemaConflictError
from dc_platform.contracts.schema_check import Checker
from dc_platform.registry import schema_rows as rows
from dc_platform.registry.bindings import Binding, bind_in, binding_of, current_bindings
from dc_platform.registry.database import Database, now_ms
from dc_platform.registry.models import SchemaBindingRow, SchemaRow, SchemaVersionRow, SourceRow
from dc_platform.registry.schema_rows import SchemaVersion


class Schemas:
    """Reads and writes schemas. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        name: str,
        content: Mapping[str, Any],
        *,
        tenant_id: str = "default",
        event_type: str | None = None,
        compatibility: Compatibility = Compatibility.BACKWARD,
        by: str = "",
    ) -> SchemaVersion:
        """A new schema with version 1; raises SchemaError, SchemaConflictError for a name in use."""
        definition = rows.checked(content)
        with self._database.change() as session:
            if rows.by_name(session, tenant_id, name) is not None:
                raise SchemaConflictError(
                    f"there is a schema {name!r}: add a version to it, or take another name"
                )
            kind = (event_type or "", compatibility)
            return rows.create(session, tenant_id, name, kind, definition, by)

    def add_version(
        self,
        schema_id: str,
        content: Mapping[str, Any],
        *,
        tenant_id: str = "default",
        by: str = "",
    ) -> SchemaVersion | None:
        """A new version; None when there is no such schema. Raises SchemaError, SchemaConflictError
        when the compatibility mode forbids it.
        """
        definition = rows.checked(content)
        with self._database.change() as session:
            row = rows.living(session, tenant_id, schema_id)
            return None if row is None else rows.add_version(session, row, definition, by)

    def get(
        self, schema_id: str, version: int | None = None, *, tenant_id: str = "default"
    ) -> SchemaVersion | None:
        """A version, by default the newest, of a schema that is not deleted."""
        with self._database.reading() as session:
            row = rows.living(session, tenant_id, schema_id)
            return None if row is None else rows.version_in(session, row, version)

    def all(self, tenant_id: str = "default") -> list[SchemaVersion]:
        """The newest version of every schema that is not deleted, oldest schema first."""
        newest = (
            select(SchemaVersionRow.schema_id, func.max(SchemaVersionRow.version).label("version"))
            .group_by(SchemaVersionRow.schema_id)
            .subquery()
        )
        query = (
            select(SchemaRow, SchemaVersionRow)
            .join(newest, newest.c.schema_id == SchemaRow.schema_id)
            .join(
                SchemaVersionRow,
                (SchemaVersionRow.schema_id == newest.c.schema_id)
                & (SchemaVersionRow.version == newest.c.version),
            )
            .where(SchemaRow.tenant_id == tenant_id, SchemaRow.deleted_ms.is_(None))
            .order_by(SchemaRow.created_ms, SchemaRow.schema_id)
        )
        with self._database.reading() as session:
            return [rows.joined(row, version) for row, version in session.execute(query)]

    def versions(self, schema_id: str, *, tenant_id: str = "default") -> list[SchemaVersion]:
        """All versions, oldest first; none when there is no such schema."""
        with self._database.reading() as session:
            row = rows.living(session, tenant_id, schema_id)
            return [] if row is None else rows.versions_of(session, row)

    def delete(self, schema_id: str, *, tenant_id: str = "default") -> bool:
        """Delete a schema: its history stays. False when there is none; raises SchemaConflictError
        while it judges a source.
        """
        with self._database.change() as session:
            row = rows.living(session, tenant_id, schema_id)
            if row is None:
                return False
            living = select(SourceRow.source_id).where(SourceRow.deleted_ms.is_(None))
            bound = current_bindings(session, session.scalars(living))
            users = sorted({b.source_id for b in bound if b.schema_id == schema_id})
            if users:
                raise SchemaConflictError(
                    f"schema {row.name!r} judges {len(users)} sources ({', '.join(users[:5])}): bind"
                    " them to another one, or to none, first"
                )
            row.deleted_ms = now_ms()
            return True

    def bind(
        self, source_id: str, wanted: Mapping[str, Any], *, tenant_id: str = "default", by: str = ""
    ) -> bool:
        """Bind a source as `bind_in`; False when there is no such source."""
        with self._database.change() as session:
            row = session.get(SourceRow, source_id)
            if row is None or row.deleted_ms is not None or row.tenant_id != tenant_id:
                return False
            bind_in(session, row, wanted, by=by)
            return True

    def bindings(self, source_id: str) -> list[Binding]:
        """Every binding that a source ever had, oldest first."""
        query = select(SchemaBindingRow).where(SchemaBindingRow.source_id == source_id)
        with self._database.reading() as session:
            found = session.scalars(query.order_by(SchemaBindingRow.number))
            return [binding_of(row) for row in found]


def history(versions: list[SchemaVersion]) -> list[dict[str, Any]]:
    """Who changed what, when: each version, oldest first, with what is different in it."""
    found, before = [], Definition()
    for version in versions:
        what = changes(before, version.definition)
        found.append({**version.as_json(), "changes": what})
        before = version.definition
    return found


def tried(
    newest: SchemaVersion,
    *,
    content: Mapping[str, Any] | None = None,
    payload: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a definition would meet as the next version, and what a payload would, judged by it or
    else by the newest version. Raises SchemaError when the definition is none.
    """
    answer: dict[str, Any] = {}
    version, definition = newest.version, newest.definition
    if content is not None:
        version, definition = version + 1, rows.checked(content)
        problems = breaks(newest.definition, definition, newest.compatibility)
        answer |= {"compatible": not problems, "problems": problems}
        answer["changes"] = changes(newest.definition, definition)
    if payload is not None:
        checker = Checker(newest.schema_id, version, newest.name, definition)
        verdict = checker.check(msgspec.json.encode(payload))
        if isinstance(verdict, Rejected):
            answer |= {"verdict": REJECTED, "code": verdict.reason, "message": verdict.message}
        else:
            answer |= {"verdict": VALID, "flags": list(verdict.flags)}
        answer["judgedBy"] = verdict.judged_by
    return answer
