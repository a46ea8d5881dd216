"""`typed.NAME`: the events of a schema with a typed column for each field. Pure.

Values are taken from the payload as they stand there; one of another type is null, never an error: the
payload stays beside it. Rows of reference tables are joined by their key, compared as text; events
without one keep nulls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dc_platform.contracts.fields import json_path, number_sql, quoted
from dc_platform.contracts.shapes import Shape, TypedField, column_names, free_name
from dc_platform.lake.reference import Reference
from dc_platform.lake.sql import sql_list, sql_text
from dc_platform.serving.view import COLUMNS, SCHEMA


def typed_sql(shape: Shape, references: Mapping[str, Reference], events: str) -> str:
    """A SELECT over `events`, itself a SELECT with the columns of the union."""
    names = list(column_names(shape.fields, SCHEMA.names))
    fields = [
        f"{_value(field)} as {quoted(name)}"
        for name, field in zip(names, shape.fields, strict=True)
    ]
    where = f"e.source_id in ({', '.join(map(sql_text, shape.source_ids))})"
    if not shape.source_ids:
        where = "false"
    elif shape.event_type is not None:
        where += f" and e.event_type = {sql_text(shape.event_type)}"
    taken = {name.lower() for name in (*SCHEMA.names, *names)}
    joins, more = [], []
    for number, enrichment in enumerate(shape.enrichments):
        reference = references.get(enrichment.reference)
        if reference is None:
            continue
        alias = f"r{number}"
        joins.append(
            f" left join read_parquet({sql_list(reference.paths)}) {alias}"
            f" on {alias}.{quoted(reference.key)}::varchar ="
            f" (e.payload ->> {sql_text(json_path(enrichment.field))})"
        )
        for column in reference.columns.names:
            name = free_name(f"{enrichment.reference}_{column}", taken)
            taken.add(name.lower())
            more.append(f"{alias}.{quoted(column)} as {quoted(name)}")
    selected = ", ".join([*(f"e.{name}" for name in COLUMNS.split(", ")), *fields, *more])
    return f"select {selected} from ({events}) e{''.join(joins)} where {where}"


def _value(field: TypedField) -> str:
    path = sql_text(json_path(field.name))
    text = f"(e.payload ->> {path})"
    kind = f"json_type(e.payload, {path})"
    value, sql_type = {
        "NUMBER": (
            f"case when {kind} in ('BIGINT', 'UBIGINT', 'DOUBLE') then {number_sql(text)} end",
            "double",
        ),
        "BOOLEAN": (f"case when {kind} = 'BOOLEAN' then {text} = 'true' end", "boolean"),
        "STRING": (f"case when {kind} = 'VARCHAR' then {text} end", "varchar"),
        "OBJECT": (f"case when {kind} = 'OBJECT' then {text} end", "varchar"),
        "ARRAY": (f"case when {kind} = 'ARRAY' then {text} end", "varchar"),
    }[field.type]
    if field.default is None:
        return value
    return f"case when {kind} is null then {_literal(field.default)}::{sql_type} else {value} end"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return sql_text(value)
    return sql_text(json.dumps(value))
