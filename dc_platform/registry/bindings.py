"""Which schema judges which source, as an append-only history, within a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dc_platform.contracts.evolution import Compatibility, changes
from dc_platform.contracts.schema import SchemaConflictError, SchemaError
from dc_platform.registry.database import iso_time, now_ms
from dc_platform.registry.models import SchemaBindingRow, SchemaRow, SourceRow
from dc_platform.registry.schema_rows import (
    SETTLE_MS,
    SchemaVersion,
    add_version,
    by_name,
    checked,
    create,
    living,
    newest,
)

_INLINE = frozenset({"name", "eventType", "compatibility", "fields", "validations"})
_REFERENCE = frozenset({"schemaId", "eventType"})


class Binding(NamedTuple):
    """Since when a schema (None: none) judges a source's events of a type ("": all others)."""

    source_id: str
    event_type: str
    schema_id: str | None
    created_ms: int
    created_by: str

    def as_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "eventType": self.event_type or None,
            "schemaId": self.schema_id,
            "since": iso_time(self.created_ms),
            "boundBy": self.created_by,
        }


def bind_in(
    session: Session,
    source: SourceRow,
    wanted: Mapping[str, Any],
    *,
    by: str,
    from_ms: int | None = None,
) -> None:
    """Bind a source from a moment on, by default as soon as everybody can know.

    `wanted` is `{"schemaId": …}`, where null ends the binding (of one `eventType`, or the one for
    all), or a schema itself. One whose name exists becomes the next version of that schema, where it
    says something else.
    """
    at = now_ms()
    if "schemaId" in wanted:
        slot, schema_id = _referred(session, source, wanted)
    else:
        row = _written(session, source, wanted, by)
        slot, schema_id = row.event_type, row.schema_id
    if any(
        b.event_type == slot and b.schema_id == schema_id
        for b in current_bindings(session, [source.source_id])
    ):
        return
    session.add(
        SchemaBindingRow(
            source_id=source.source_id,
            event_type=slot,
            schema_id=schema_id,
            from_ms=at + SETTLE_MS if from_ms is None else from_ms,
            created_ms=at,
            created_by=by,
        )
    )


def _referred(
    session: Session, source: SourceRow, wanted: Mapping[str, Any]
) -> tuple[str, str | None]:
    if not wanted.keys() <= _REFERENCE:
        raise SchemaError("schema: give a schemaId alone, or the fields of a schema without one")
    schema_id, event_type = wanted["schemaId"], wanted.get("eventType") or ""
    if schema_id is None:
        return str(event_type), None
    row = living(session, source.tenant_id, str(schema_id))
    if row is None:
        raise SchemaError(f"there is no schema {schema_id}; dcp schema list shows them")
    if event_type not in ("", row.event_type):
        raise SchemaError(
            f"schema {row.name!r} is for {row.event_type or 'all event types'}, not for {event_type}"
        )
    return row.event_type, row.schema_id


def _written(session: Session, source: SourceRow, wanted: Mapping[str, Any], by: str) -> SchemaRow:
    if unknown := wanted.keys() - _INLINE:
        raise SchemaError(f"schema: unknown member {sorted(unknown)[0]!r}")
    content = {k: wanted[k] for k in ("fields", "validations") if k in wanted}
    definition = checked(content)
    name = str(wanted.get("name") or f"source {source.source_id}")
    event_type = str(wanted.get("eventType") or "")
    try:
        mode = Compatibility(wanted.get("compatibility") or Compatibility.BACKWARD)
    except ValueError:
        modes = ", ".join(Compatibility)
        raise SchemaError(f"schema: compatibility is one of {modes}") from None
    if len(name) > 256 or len(event_type) > 256:
        raise SchemaError("schema: name and eventType have 256 characters at most")
    row = by_name(session, source.tenant_id, name)
    if row is None:
        made = create(session, source.tenant_id, name, (event_type, mode), definition, by)
        row = session.get_one(SchemaRow, made.schema_id)
    elif row.event_type != event_type:
        raise SchemaConflictError(
            f"the schema {name!r} is for {row.event_type or 'all event types'}: take another name"
        )
    elif changes(newest(session, row).definition, definition):
        add_version(session, row, definition, by)
    return row


def current_bindings(session: Session, source_ids: Iterable[str]) -> list[Binding]:
    """The bindings of sources as they are now, those to no schema left out."""
    wanted = set(source_ids)
    query = select(SchemaBindingRow).order_by(SchemaBindingRow.number)
    if len(wanted) == 1:
        query = query.where(SchemaBindingRow.source_id.in_(wanted))
    last = {
        (row.source_id, row.event_type): binding_of(row)
        for row in session.scalars(query)
        if row.source_id in wanted
    }
    return [binding for binding in last.values() if binding.schema_id is not None]


def bound_schemas(session: Session, bindings: Iterable[Binding]) -> dict[str, SchemaVersion]:
    """schema_id → its newest version, of all that are bound."""
    wanted = {binding.schema_id for binding in bindings}
    rows = session.scalars(select(SchemaRow).where(SchemaRow.schema_id.in_(wanted)))
    return {row.schema_id: newest(session, row) for row in rows}


def binding_of(row: SchemaBindingRow) -> Binding:
    """A row as it is shown."""
    return Binding(row.source_id, row.event_type, row.schema_id, row.created_ms, row.created_by)
