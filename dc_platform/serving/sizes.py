"""The tables and their sizes, as one tenant may know them.

The log has rows and bytes of each file, of all tenants together; how many rows are whose is counted
once per file, because a file never changes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dc_platform.contracts.tables import TABLES, TableSpec
from dc_platform.lake.table import Snapshot
from dc_platform.serving.engine import Engine
from dc_platform.serving.rollup import Counter, together
from dc_platform.serving.view import View

_SQL = {"rows": "select part, tenant_id, count(*)::bigint as events from rows group by all"}
# Of counting per look; the next look goes on.
_BUDGET_SECONDS = 0.5


class Sizes:
    """Thread-safe: what two count at the same time is the same."""

    def __init__(self, engine: Engine, counter: Counter) -> None:
        self._engine = engine
        self._counter = counter
        # Table → file → tenant → rows.
        self._known: dict[str, dict[str, Mapping[str, int]]] = {}

    def tables(self, view: View, tenant_id: str) -> list[dict[str, Any]]:
        """Every table of the lake; `counting` where not all files are counted yet."""
        deadline = time.monotonic() + _BUDGET_SECONDS
        found = []
        for spec in TABLES:
            snapshot = self._engine.snapshot(spec, view)
            own = None
            if "tenant_id" in spec.columns.names:
                own = self._count(spec, snapshot, deadline)
            found.append(_size(spec, snapshot, own, tenant_id))
        return found

    def _count(
        self, spec: TableSpec, snapshot: Snapshot, deadline: float
    ) -> dict[str, Mapping[str, int]]:
        before = self._known.get(spec.name, {})
        known = {path: before[path] for path in snapshot.paths if path in before}
        sizes = zip(snapshot.paths, snapshot.actions["size_bytes"].to_pylist(), strict=True)
        for paths in together((path, size) for path, size in sizes if path not in before):
            if time.monotonic() > deadline:
                break
            for path, rollup in self._counter.files(_SQL, paths, ["tenant_id"]).items():
                rows = rollup["rows"].to_pylist()
                known[path] = {row["tenant_id"]: row["events"] for row in rows}
        self._known[spec.name] = known
        return known


def _size(
    spec: TableSpec,
    snapshot: Snapshot,
    own: Mapping[str, Mapping[str, int]] | None,
    tenant_id: str,
) -> dict[str, Any]:
    actions = snapshot.actions
    files = zip(
        snapshot.paths,
        actions["num_records"].to_pylist(),
        actions["size_bytes"].to_pylist(),
        strict=True,
    )
    rows = size = count = 0
    for path, all_rows, all_bytes in files:
        mine = all_rows or 0 if own is None else own.get(path, {}).get(tenant_id, 0)
        rows += mine
        count += mine > 0
        # Of a file of several tenants the share of its rows.
        size += round(all_bytes * mine / all_rows) if all_rows else 0
    answer = {
        "table": spec.name,
        "description": spec.description,
        "rows": rows,
        "bytes": size,
        "files": count,
        "version": snapshot.version,
    }
    if own is not None and len(own) < len(snapshot.paths):
        answer["counting"] = True
    return answer
