"""Files that a restore brings back: taken into the table under new names, less what was deleted since.

What was deleted on purpose stays deleted, and this is the one place where a restore heeds the
tombstones. `ops.tombstones` itself never goes back. A file that comes back may have rows that were
deleted since: it is written anew without them before it is committed, so no version of the table ever
shows them again. Of such a row of bronze its address stays, and nothing of what it held: bronze has a
row for every address.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa

from dc_platform.contracts.blocks import DELETED
from dc_platform.contracts.ops_tables import TOMBSTONES
from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_QUARANTINE,
    STUB_COLUMNS,
    TableSpec,
)
from dc_platform.errors import ConfigurationError
from dc_platform.lake.origins import FOLDER
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.scratch import scratch
from dc_platform.lake.sql import file_sql, sql_list, sql_text, table_sql
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.backfill_rows import Connection, write_files

# Fewer rows than this DuckDB does not hand out.
_READ_ROWS = 2_048


def taken_in(lake: Lake, spec: TableSpec, root: str, files: list[DataFile]) -> list[DataFile]:
    """`files`, which lie in `root`, as new files of the table, without the rows that were deleted.

    The names are new, because the old ones may be in the log as removed: a clean-up that has already
    begun may delete them. Raises ConfigurationError when one is gone.
    """
    missing = [file.path for file in files if not Path(f"{root}/{file.path}").exists()]
    if missing:
        raise ConfigurationError(
            f"{len(missing)} files of {spec.name} as it was are no longer on disk ({missing[0]}, …):"
            " replaced files stay for DCP_REMOVED_FILES_MINUTES; restore from a backup"
            " (dcp backup list), or to a later moment"
        )
    with scratch() as connection:
        marked = _mark(lake, spec, connection, [f"{root}/{file.path}" for file in files])
        found: list[DataFile] = []
        for file in files:
            path = f"{root}/{file.path}"
            if path in marked:
                assert file.partition is not None
                pieces = read(connection, spec, _without_deleted(spec, path))
                found += write_files(lake, pieces, file.partition, spec)
            else:
                found.append(_linked(lake, spec, root, file))
    return found


def read(connection: Connection, spec: TableSpec, rows: str) -> Iterator[pa.Table]:
    """Rows of a table in pieces."""
    names = ", ".join(spec.file_schema.names)
    for piece in connection.execute(f"select {names} from {rows}").to_arrow_reader(_READ_ROWS):
        yield pa.Table.from_batches([piece])


def _mark(lake: Lake, spec: TableSpec, connection: Connection, paths: list[str]) -> set[str]:
    """Paths of the files that have rows with a tombstone; the tombstones are `deleted` then."""
    if not lake.exists(TOMBSTONES) or not paths:
        return set()
    rows = table_sql(TOMBSTONES, LakeTable(lake, TOMBSTONES).snapshot())
    connection.execute(
        "create or replace temp table deleted as"
        f" select distinct source_id, event_id as deleted_id from ({rows})"
    )
    found = connection.execute(
        f"select distinct filename from read_parquet({sql_list(paths)}, filename = true,"
        f" hive_partitioning = false) r semi join deleted d on {_same(spec)}"
    ).fetchall()
    return {path for (path,) in found}


def _same(spec: TableSpec) -> str:
    """Whether a row `r` of the table is the one that a tombstone `d` names."""
    identity = "quarantine_id" if spec is SILVER_QUARANTINE else "event_id"
    return f"r.source_id is not distinct from d.source_id and r.{identity} = d.deleted_id"


def _without_deleted(spec: TableSpec, path: str) -> str:
    rows = f"({file_sql(spec, path)}) r"
    if spec is not BRONZE_EVENTS:
        return f"(select r.* from {rows} anti join deleted d on {_same(spec)})"
    columns = ", ".join(
        f"r.{name}"
        if name in STUB_COLUMNS
        else f"case when deleted_id is null then r.{name}"
        f" else {sql_text(DELETED) if name == 'verdict' else 'null'} end as {name}"
        for name in spec.file_schema.names
    )
    return f"(select {columns} from {rows} left join deleted d on {_same(spec)})"


def _linked(lake: Lake, spec: TableSpec, root: str, file: DataFile) -> DataFile:
    old = PurePosixPath(file.path)
    # `part-`, `tier-`, `hour-`: compaction goes by it.
    new = str(old.with_name(f"{old.name.split('-')[0]}-{uuid.uuid4()}.parquet"))
    lake.adopt(spec, f"{root}/{file.path}", new)
    identities = f"{FOLDER}/{old.name}.ids"
    if Path(f"{root}/{identities}").exists():
        lake.adopt(spec, f"{root}/{identities}", f"{FOLDER}/{PurePosixPath(new).name}.ids")
    return file.renewed(new)
