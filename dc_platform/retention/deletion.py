"""A deletion from its request to its proof.

    tombstones      what could come in again, before anything is taken away
    tables          bronze, quarantine, silver: no newest version has the rows
    files           what was replaced is removed, when no reader needs it (or at once)
    proof           every file below the lake is looked at
    ops.deletions   what went, and the proof; then the registry calls it finished

Every step may be repeated, so a run that was killed is done again from the beginning and finds only
what is left. Bronze comes before silver: a backfill beside it takes from silver what bronze no longer
has, and never gives it back; the ledger counts an event as deleted from the moment of its stub on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from dc_platform.contracts.ops_tables import DELETIONS
from dc_platform.contracts.tables import TABLES, TableSpec
from dc_platform.errors import CommitConflictError
from dc_platform.lake.cleaning import clean, entries_kept, remove_replaced
from dc_platform.lake.parquet import read_batches, write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.acks import KEPT_DAYS
from dc_platform.points import Point, Reached, unarmed
from dc_platform.registry.retention import Deletion, Retention
from dc_platform.retention.conditions import SPECS, Conditions
from dc_platform.retention.erase import METADATA, Erased, Eraser, Stubs
from dc_platform.retention.proof import Proof, prove
from dc_platform.retention.tombstones import write_tombstones

log = logging.getLogger(__name__)

_RETRIES = 20
# The ledger keeps hours for as long as acknowledgements are kept; a day for what is at their border.
_STUB_DAYS = KEPT_DAYS + 1


@dataclass(frozen=True)
class Outcome:
    """How far a deletion has come. `waits`: for what; None: it is finished."""

    deletion: Deletion
    erased: Mapping[str, Erased]
    tombstones: int
    proof: Proof | None
    waits: str | None


class Deletions:
    """Carries deletions out on one lake; one process at a time does."""

    def __init__(
        self,
        lake: Lake,
        retention: Retention,
        *,
        log_commits: int,
        beside: Sequence[Path] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Reached = unarmed,
    ) -> None:
        self._lake = lake
        self._retention = retention
        self._log_commits = log_commits
        self._beside = beside
        self._clock = clock
        self._reached = reached
        Path(lake.uri).mkdir(parents=True, exist_ok=True)
        for spec in TABLES:
            lake.ensure(spec)
        self.lock = FileLock(Path(lake.uri) / "_deletions.lock")

    def carry_out(
        self,
        deletion: Deletion,
        conditions: Conditions,
        *,
        kept_predicate: Mapping[str, Any],
        value: str | None = None,
        landed: Callable[[], str | None] = lambda: None,
    ) -> Outcome:
        """As far as it comes now. `landed` says what has not landed yet of what the deletion is about;
        None: all of it has.
        """
        with self.lock:
            waits = landed()
            now, tombstones = self._erase(deletion, conditions)
            erased = self._summed(deletion, now)
            self._retention.erased(
                deletion.deletion_id, {name: asdict(e) for name, e in erased.items()}
            )
            if waits is not None:
                return Outcome(deletion, erased, tombstones, None, waits)
            if deletion.deleted_ms is None or any(e.files for e in now.values()):
                self._retention.deleted(deletion.deletion_id)
                deletion = deletion._replace(deleted_ms=int(self._clock().timestamp() * 1000))
            waits = self._remove_files(deletion)
            if waits is not None:
                return Outcome(deletion, erased, tombstones, None, waits)
            self._reached(Point.FILES_REMOVED)
            proof = prove(
                self._lake,
                conditions,
                deletion.deletion_id,
                received_until=deletion.requested_ms,
                value=value,
                beside=self._beside,
            )
            if not proof.holds:
                waits = f"{proof.found[0]['file']} still has some of it"
                return Outcome(deletion, erased, tombstones, proof, waits)
            self._reached(Point.DELETION_PROVED)
            self._record(deletion, erased, kept_predicate, proof)
            self._reached(Point.DELETION_RECORDED)
            self._retention.finished(deletion.deletion_id, kept_predicate)
            return Outcome(deletion, erased, tombstones, proof, None)

    def _erase(self, deletion: Deletion, conditions: Conditions) -> tuple[dict[str, Erased], int]:
        now = self._clock()
        tombstones = write_tombstones(self._lake, conditions, deletion.deletion_id, now)
        self._reached(Point.TOMBSTONES_WRITTEN)
        eraser = Eraser(self._lake, deletion.deletion_id, self.stubs(), reached=self._reached)
        erased = {spec.name: eraser.erase(spec, conditions) for spec in SPECS}
        *others, silver = (erased[spec.name] for spec in SPECS)
        if not silver.files and any(other.files for other in others):
            eraser.note()
        self._reached(Point.TABLES_ERASED)
        return erased, tombstones

    def _summed(self, deletion: Deletion, now: Mapping[str, Erased]) -> dict[str, Erased]:
        """With what runs before this one took. One that was killed did not say it in the registry, but
        in its commits, as far as the log still has them.
        """
        summed = {}
        for spec in SPECS:
            before = deletion.erased.get(spec.name, {})
            said = _said(self._lake, spec, deletion.deletion_id)
            figures = {
                name: max(before.get(name, 0) + getattr(now[spec.name], name), said[name])
                for name in ("rows", "files", "bytes")
            }
            version = now[spec.name].version if now[spec.name].files else before.get("version")
            summed[spec.name] = Erased(**figures, version=version or now[spec.name].version)
        return summed

    def stubs(self) -> Stubs:
        """Which rows of bronze leave a stub."""
        oldest = self._clock() - timedelta(days=_STUB_DAYS)
        return Stubs(int(oldest.timestamp()) * 1_000_000)

    # --- the files ---

    def _remove_files(self, deletion: Deletion) -> str | None:
        """Remove what was replaced; says what it waits for when readers may still need it."""
        assert deletion.deleted_ms is not None
        if not deletion.at_once:
            keeps = max(LakeTable(self._lake, spec).keeps_seconds for spec in SPECS)
            due = deletion.deleted_ms / 1000 + keeps + 1
            if self._clock().timestamp() < due:
                at = datetime.fromtimestamp(due, UTC).isoformat(timespec="seconds")
                return f"replaced files stay for readers of older versions until {at}"
        for spec in SPECS:
            if deletion.at_once:
                remove_replaced(self._lake, spec)
            clean(self._lake, spec, keep=entries_kept(spec, self._log_commits))
        return None

    # --- the record ---

    def _record(
        self,
        deletion: Deletion,
        erased: Mapping[str, Erased],
        predicate: Mapping[str, Any],
        proof: Proof,
    ) -> None:
        table = LakeTable(self._lake, DELETIONS)
        now = self._clock()
        times = {
            "requested_at": _time(deletion.requested_ms),
            "deleted_at": _time(deletion.deleted_ms or 0),
            "vacuumed_at": now,
        }
        for _ in range(_RETRIES):
            if _is_recorded(table, deletion.deletion_id):
                return
            rows = [
                {
                    "deletion_id": deletion.deletion_id,
                    "kind": deletion.kind.value,
                    "tenant_id": deletion.tenant_id,
                    "who": deletion.who,
                    "predicate": json.dumps(predicate, sort_keys=True),
                    "table_name": spec.name,
                    "rows": erased[spec.name].rows,
                    "files": erased[spec.name].files,
                    "bytes": erased[spec.name].bytes,
                    "table_version": erased[spec.name].version,
                    **times,
                    "proof": json.dumps(proof.as_dict()),
                }
                for spec in SPECS
            ]
            columns = pa.Table.from_pylist(rows, schema=DELETIONS.columns)
            file = write_file(self._lake, DELETIONS, columns, partition=None)
            metadata = {"dcp.deletion": deletion.deletion_id}
            try:
                table.commit([file], txns={}, exact=True, metadata=metadata)
            except CommitConflictError:
                table.refresh()
                continue
            return
        raise CommitConflictError(
            "ops.deletions: too many conflicting commits; the next run goes on"
        )


def recorded(lake: Lake, deletion_id: str | None = None) -> list[dict[str, Any]]:
    """What `ops.deletions` says of one deletion, or of all, the newest first."""
    if not lake.exists(DELETIONS):
        return []
    rows = [
        row
        for path in LakeTable(lake, DELETIONS).snapshot().paths
        for piece in read_batches(path, DELETIONS.columns.names)
        for row in piece.to_pylist()
        if deletion_id is None or row["deletion_id"] == deletion_id
    ]
    rows.sort(key=lambda row: row["requested_at"], reverse=True)
    return rows


def _said(lake: Lake, spec: TableSpec, deletion_id: str) -> dict[str, int]:
    """What the commits of a deletion say that they took, as far as the log has them."""
    found = [
        said
        for entry in LakeTable(lake, spec).history()
        if METADATA in entry and (said := json.loads(entry[METADATA]))["id"] == deletion_id
    ]
    return {name: sum(said[name] for said in found) for name in ("rows", "files", "bytes")}


def _is_recorded(table: LakeTable, deletion_id: str) -> bool:
    return any(
        deletion_id in piece.column(0).to_pylist()
        for path in table.snapshot().paths
        for piece in read_batches(path, ["deletion_id"])
    )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
