"""SELECTs of data files, those of older releases included, which lack columns that came later."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
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
    partitioned = "true" if spec.partition_by else "false"
    return files_sql(
        spec, snapshot.paths, snapshot.lacking(spec), f"hive_partitioning = {partitioned}"
    )


def files_sql(
    spec: TableSpec,
    paths: Sequence[str],
    lacking: Collection[str],
    *options: str,
    columns: str | None = None,
) -> str:
    """A SELECT of `columns`, by default all, of data files with these options of read_parquet.

    `lacking` are those of them that may lack columns that came later: these are null there. They are
    read in a scan of their own, which looks at each footer first; the others pay nothing for it.
    """
    names = columns or ", ".join(spec.columns.names)
    also = "".join(f", {option}" for option in options)
    parts = []
    if whole := [path for path in paths if path not in lacking]:
        parts.append(f"select {names} from read_parquet({sql_list(whole)}{also})")
    if older := [path for path in paths if path in lacking]:
        added = pa.schema([spec.columns.field(name) for name in spec.added])
        parts.append(
            f"select {names} from (select * from"
            f" read_parquet({sql_list(older)}, union_by_name = true{also})"
            f" union all by name {empty_select(added)})"
        )
    return " union all ".join(parts)


def file_sql(spec: TableSpec, path: str) -> str:
    """A SELECT of what a data file has, in the columns of files today, to be written anew."""
    names = ", ".join(spec.file_schema.names)
    return files_sql(spec, [path], [path], "hive_partitioning = false", columns=names)


def empty_select(schema: pa.Schema) -> str:
    """A DuckDB SELECT with the columns of `schema` and no rows."""
    columns = ", ".join(f"null::{_sql_type(field.type)} as {field.name}" for field in schema)
    return f"select {columns} where false"


def _sql_type(type_: pa.DataType) -> str:
    if pa.types.is_timestamp(type_):
        return "timestamptz"
    if pa.types.is_map(type_):
        return "map(varchar, varchar)"
    if pa.types.is_list(type_):
        return "varchar[]"
    names = {
        "int32": "integer",
        "int64": "bigint",
        "double": "double",
        "date32[day]": "date",
        "binary": "blob",
        "decimal128(38, 9)": "decimal(38, 9)",
    }
    return names.get(str(type_), "varchar")
