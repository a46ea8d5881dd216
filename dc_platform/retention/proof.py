"""Proof of a deletion: every file below the lake is looked at for what was deleted.

Live or not: what a newer version replaced and nobody removed, what a crashed writer left behind and
what somebody copied into the lake is found as well. Of the files of bronze, silver and quarantine the
rows that the deletion is about are counted; files of other tables are searched for a person's value as
a whole cell; the identity files beside silver's for the identities that have tombstones. An index of
payload fields has hashes of what its file has, and no others: one whose file is gone is found as well.
Spilled rows of the tail are looked at, too, where the caller says that there are some.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from dc_platform.contracts.ops_tables import TOMBSTONES
from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.origins import FOLDER
from dc_platform.lake.payload_index import SUFFIX as INDEX
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, sql_list, sql_text, table_sql
from dc_platform.landing.keys import KeyMaker, Keys, SortedKeys
from dc_platform.retention.conditions import SPECS, Conditions

log = logging.getLogger(__name__)

_MEMORY = "1GB"
_EXAMPLES = 20
# What is written down about deletions and progress names no event's content.
_OWN = "ops"


@dataclass
class Proof:
    """What was looked at, and where something was found (the first of it)."""

    files: int = 0
    rows: int = 0
    bytes: int = 0
    identity_files: int = 0
    found: list[dict[str, Any]] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing was found."""
        return not self.found

    def as_dict(self) -> dict[str, Any]:
        """For `ops.deletions`."""
        return {
            "files": self.files,
            "rows": self.rows,
            "bytes": self.bytes,
            "identityFiles": self.identity_files,
            "found": self.found[:_EXAMPLES],
        }


def prove(
    lake: Lake,
    conditions: Conditions,
    deletion_id: str,
    *,
    received_until: int,
    value: str | None = None,
    beside: Sequence[Path] = (),
) -> Proof:
    """Look at every file for rows that were received until then (epoch milliseconds) and should be
    gone; `beside`: folders with rows of silver that are not in the lake.
    """
    proof = Proof()
    root = Path(lake.uri)
    with scratch(memory=_MEMORY, threads=1) as connection:
        for path in sorted(root.rglob("*.parquet")):
            inside = path.relative_to(root)
            if "_delta_log" in inside.parts:
                continue
            spec = _spec_of(inside)
            if spec is not None:
                condition = f"coalesce({conditions.of(spec)}, false)"
                until = f"received_at <= make_timestamptz({received_until * 1000 + 999})"
                _look(connection, proof, path, f"{condition} and {until}")
            elif value is not None and inside.parts[0] != _OWN:
                _look(connection, proof, path, _has_cell(connection, path, value))
        for folder in beside:
            for path in sorted(folder.glob("*.parquet")):
                _look(connection, proof, path, f"coalesce({conditions.of(SILVER_EVENTS)}, false)")
        _look_at_identities(lake, connection, proof, deletion_id)
    _look_at_indexes(lake, proof)
    return proof


def _spec_of(inside: Path) -> TableSpec | None:
    return next((s for s in SPECS if inside.is_relative_to(s.path)), None)


def _look(connection: duckdb.DuckDBPyConnection, proof: Proof, path: Path, condition: str) -> None:
    rows = f"read_parquet({sql_list([str(path)])}, hive_partitioning = false)"
    try:
        size = path.stat().st_size
        total, found = connection.execute(
            f"select count(*), count(*) filter ({condition}) from {rows}"
        ).fetchall()[0]
    except (OSError, duckdb.Error) as error:
        if not path.exists():
            # Landing and compaction go on beside it.
            return
        raise StoreUnavailableError(f"the proof cannot read {path}: {error}") from error
    proof.files += 1
    proof.rows += total
    proof.bytes += size
    if found:
        proof.found.append({"file": str(path), "rows": found})


def _has_cell(connection: duckdb.DuckDBPyConnection, path: Path, value: str) -> str:
    """Whether a row has the value in a column of texts."""
    rows = f"read_parquet({sql_list([str(path)])}, hive_partitioning = false)"
    described = connection.execute(f"describe select * from {rows}").fetchall()
    texts = [f'"{name}"' for name, kind, *_ in described if kind == "VARCHAR"]
    return " or ".join(f"coalesce({name} = {sql_text(value)}, false)" for name in texts) or "false"


def _look_at_identities(
    lake: Lake, connection: duckdb.DuckDBPyConnection, proof: Proof, deletion_id: str
) -> None:
    tombstones = table_sql(TOMBSTONES, LakeTable(lake, TOMBSTONES).snapshot())
    rows = connection.execute(
        f"select source_id, event_id from ({tombstones}) where cause = {sql_text(deletion_id)}"
    ).to_arrow_table()
    maker = KeyMaker(LakeTable(lake, SILVER_EVENTS).id)
    gone = maker.keys(rows["source_id"], rows["event_id"])
    for name, keys in _identity_files(lake, maker):
        proof.identity_files += 1
        found = int(np.count_nonzero(SortedKeys.of(keys).contains(gone)))
        if found:
            proof.found.append({"file": name, "identities": found})


def _look_at_indexes(lake: Lake, proof: Proof) -> None:
    indexes = [e.path for e in lake.listing(SILVER_EVENTS, FOLDER) if e.path.endswith(INDEX)]
    there = {Path(e.path).name for e in lake.listing(SILVER_EVENTS, deep=True)}
    left = [path for path in indexes if Path(path).stem not in there]
    proof.found += [{"file": path, "index": "its file is gone"} for path in left]


def _identity_files(lake: Lake, maker: KeyMaker) -> Iterator[tuple[str, Keys]]:
    files = IdentityFiles(lake, SILVER_EVENTS, maker.mark)
    for entry in lake.listing(SILVER_EVENTS, FOLDER):
        if entry.path.endswith(".ids"):
            words = files.read(Path(entry.path).stem, None)
            if words is not None:
                yield entry.path, Keys(words.high, words.low)
