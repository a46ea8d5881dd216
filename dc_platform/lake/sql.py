"""DuckDB's SQL over the files of a snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pyarrow as pa

from dc_platform.contracts.tables import TableSpec

if TYPE_CHECKING:
    from dc_platform.lake.table import Snapshot


def sql_text(value: str) -> str:
    """A DuckDB string literal."""
    return "'" + value.replace("'", "''") + "'"


def sql_list(values: Iterable[str]) -> str:
    """A DuckDB list literal of strings."""
    return "[" + ", ".join(map(sql_text, values)) + "]"


def table_sql(spec: TableSpec, snapshot: Snapshot) -> str:
    """A SELECT of all columns of a table at a snapshot."""
    if not snapshot.paths:
        return empty_select(spec.columns)
    names = ", ".join(spec.columns.names)
    partitioned = "true" if spec.partition_by else "false"
    return (
        f"select {names} from read_parquet({sql_list(snapshot.paths)},"
        f" hive_partitioning = {partitioned})"
    )


def empty_select(schema: pa.Schema) -> str:
    """A DuckDB SELECT with the columns of `schema` and no rows."""
    columns = ", ".join(f"null::{_sql_type(field.type)} as {field.name}" for field in schema)
    return f"select {columns} where false"


def _sql_type(type_: pa.DataType) -> str:
    if pa.types.is_timestamp(type_):
        return "timestamptz"
    if pa.types.is_map(type_):
        return "map(varchar, varchar)"
    names = {
        "int32": "integer",
        "int64": "bigint",
        "double": "double",
        "date32[day]": "date",
        "binary": "blob",
        "decimal128(38, 9)": "decimal(38, 9)",
    }
    return names.get(str(type_), "varchar")
