"""What the typed views of a tenant look like: from its schemas, their bindings and enrichments."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select

from dc_platform.contracts.schema import FIELD_PATH, SchemaError
from dc_platform.contracts.shapes import Enrichment, Shape, TypedField, free_name
from dc_platform.registry.database import Database
from dc_platform.registry.models import EnrichmentRow, SchemaBindingRow, SchemaRow, SourceRow
from dc_platform.registry.schema_rows import living, versions_of


class Shapes:
    """Reads them, at most `seconds` old; and which fields are enriched from which table."""

    def __init__(self, database: Database, *, seconds: float) -> None:
        self._database = database
        self._seconds = seconds
        self._known: dict[str, tuple[float, Mapping[str, Shape]]] = {}

    def of(self, tenant_id: str) -> Mapping[str, Shape]:
        """The shapes of a tenant by the name of their view."""
        known = self._known.get(tenant_id)
        if known is None or time.monotonic() - known[0] > self._seconds:
            known = (time.monotonic(), self._read(tenant_id))
            self._known[tenant_id] = known
        return known[1]

    def enrich(self, tenant_id: str, schema_id: str, field: str, reference: str | None) -> bool:
        """Join the rows of `ref.<reference>` by a field of a schema, or no longer (None); False when
        there is no such schema. Raises SchemaError for what is no path into the payload.
        """
        if not FIELD_PATH.fullmatch(field):
            raise SchemaError(f"{field!r} is no path into the payload: write it as in user.id")
        with self._database.change() as session:
            row = living(session, tenant_id, schema_id)
            if row is None:
                return False
            mine = (EnrichmentRow.schema_id == row.schema_id, EnrichmentRow.field == field)
            session.execute(delete(EnrichmentRow).where(*mine))
            if reference is not None:
                session.add(
                    EnrichmentRow(schema_id=row.schema_id, field=field, reference=reference)
                )
        self._known.pop(tenant_id, None)
        return True

    def _read(self, tenant_id: str) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {}
        query = (
            select(SchemaRow)
            .where(SchemaRow.tenant_id == tenant_id, SchemaRow.deleted_ms.is_(None))
            .order_by(SchemaRow.created_ms, SchemaRow.schema_id)
        )
        with self._database.reading() as session:
            for row in session.scalars(query):
                name = _view_name(row.name, shapes)
                shapes[name] = Shape(
                    name=name,
                    source_ids=session.scalars(_bound(row, tenant_id)).all(),
                    event_type=row.event_type or None,
                    fields=_fields([v.definition for v in versions_of(session, row)]),
                    enrichments=[
                        Enrichment(e.field, e.reference)
                        for e in session.scalars(
                            select(EnrichmentRow)
                            .where(EnrichmentRow.schema_id == row.schema_id)
                            .order_by(EnrichmentRow.field)
                        )
                    ],
                )
        return shapes


def _bound(row: SchemaRow, tenant_id: str) -> Any:
    """The sources that it judges, or judged once."""
    return (
        select(SchemaBindingRow.source_id)
        .join(SourceRow, SourceRow.source_id == SchemaBindingRow.source_id)
        .where(SchemaBindingRow.schema_id == row.schema_id, SourceRow.tenant_id == tenant_id)
        .distinct()
        .order_by(SchemaBindingRow.source_id)
    )


def _fields(definitions: list[Any]) -> list[TypedField]:
    """Each field as the newest version that has it says, in the order in which they came."""
    found: dict[str, TypedField] = {}
    for definition in definitions:
        for field in definition.fields:
            found[field.name] = TypedField(field.name, field.type.value, field.defaultValue)
    return list(found.values())


def _view_name(name: str, taken: Mapping[str, Shape]) -> str:
    plain = re.sub(r"[^a-z0-9_]", "_", name.lower())
    plain = plain if plain[:1].isalpha() else f"s_{plain}"
    return free_name(plain, taken)
