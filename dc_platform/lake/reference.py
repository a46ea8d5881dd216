"""Reference tables: small Delta tables of what a team knows about the things that events name.

`ref/TENANT/NAME` below the lake's root. The key is a column that names each row once; it stands in the
commit that wrote the rows, so the lake alone says what there is. A new upload takes the place of all
rows in one commit: readers see the old ones or the new ones.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError, TableNotFoundError

from dc_platform.errors import ConfigurationError, StoreUnavailableError
from dc_platform.lake.store import Lake

_KEY = "dcp.reference.key"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
# It is joined to every query of a typed view, in the memory of that query.
MAX_ROWS = 5_000_000


class Reference(NamedTuple):
    """A reference table at a version; `paths` are its data files."""

    tenant_id: str
    name: str
    key: str
    columns: pa.Schema
    version: int
    rows: int
    paths: Sequence[str]


class References:
    """The reference tables of a lake."""

    def __init__(self, lake: Lake) -> None:
        self._root = Path(lake.uri) / "ref"

    def put(self, tenant_id: str, name: str, rows: pa.Table, key: str) -> Reference:
        """Put `rows` in place of what the table had; raises ConfigurationError where they are no
        reference table.
        """
        path = self._path(tenant_id, name)
        table = _checked(rows, key)
        try:
            write_deltalake(
                str(path),
                table,
                mode="overwrite",
                schema_mode="overwrite",
                name=f"ref.{name}",
                commit_properties=CommitProperties(custom_metadata={_KEY: key}),
            )
        except (DeltaError, OSError) as error:
            raise StoreUnavailableError(f"writing ref.{name} failed: {error}") from error
        found = self.get(tenant_id, name)
        if found is None:
            raise StoreUnavailableError(f"ref.{name} was removed while it was written; try again")
        return found

    def get(self, tenant_id: str, name: str) -> Reference | None:
        """The newest version of a table, if there is one."""
        path = self._path(tenant_id, name)
        try:
            table = DeltaTable(str(path))
        except TableNotFoundError:
            return None
        except (DeltaError, OSError) as error:
            raise StoreUnavailableError(f"reading ref.{name} failed: {error}") from error
        actions = pa.table(table.get_add_actions(flatten=True))
        return Reference(
            tenant_id=tenant_id,
            name=name,
            key=table.history(1)[0].get(_KEY, ""),
            columns=pa.schema(table.schema().to_arrow()),
            version=table.version(),
            rows=sum(actions["num_records"].to_pylist()),
            paths=[f"{path}/{file}" for file in actions["path"].to_pylist()],
        )

    def names(self, tenant_id: str) -> list[str]:
        """The tables of a tenant, by name."""
        folder = self._root / _tenant(tenant_id)
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if (p / "_delta_log").is_dir())

    def remove(self, tenant_id: str, name: str) -> bool:
        """Delete a table, its files and all; False when there is none."""
        path = self._path(tenant_id, name)
        if not path.is_dir():
            return False
        # The log first: from then on nobody takes what is left for a table.
        with suppress(FileNotFoundError):
            shutil.rmtree(path / "_delta_log")
        shutil.rmtree(path)
        return True

    def _path(self, tenant_id: str, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot name a reference table: use small letters, digits and _, a letter"
                " first, 63 at most"
            )
        return self._root / _tenant(tenant_id) / name


def _tenant(tenant_id: str) -> str:
    if not _TENANT.fullmatch(tenant_id):
        raise ConfigurationError(f"tenant {tenant_id!r} cannot have reference tables")
    return tenant_id


def _checked(rows: pa.Table, key: str) -> pa.Table:
    """The rows, when each has a key of its own and columns that SQL can name."""
    if key not in rows.column_names:
        raise ConfigurationError(f"there is no column {key!r}: there are {rows.column_names}")
    wrong = [name for name in rows.column_names if not _COLUMN.fullmatch(name)]
    folded = {name.lower() for name in rows.column_names}
    if wrong or len(folded) < len(rows.column_names):
        raise ConfigurationError(
            f"columns {wrong or rows.column_names} cannot be named in SQL: use letters, digits and _,"
            " each name once whatever its case"
        )
    if not 0 < len(rows) <= MAX_ROWS:
        raise ConfigurationError(
            f"a reference table has 1 to {MAX_ROWS:,} rows, this one has {len(rows):,}"
        )
    keys = rows[key].cast(pa.string())
    if keys.null_count:
        raise ConfigurationError(f"{keys.null_count} rows have no {key}: each row needs one")
    counts = pc.value_counts(keys.combine_chunks())
    twice = pc.filter(counts.field("values"), pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise ConfigurationError(
            f"{len(twice)} values of {key} are there more than once, {twice[0].as_py()!r} for"
            " example: events would be doubled"
        )
    return rows
