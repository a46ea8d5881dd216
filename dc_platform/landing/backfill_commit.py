"""The commit of a rebuilt day, while landing goes on.

To compare and write a day takes longer than landing takes from one commit to the next, so a commit that
is refused whenever the table moved never comes about. What has come since says whether the result still
holds. It does when only landing and compaction committed, and no row that landed has an identity that
the backfill adds. Rows that landed into the day meanwhile stay where they are: the files that were
compared are replaced, not the day. Where compaction has merged some of those with newer ones, the newer
rows are carried over into a file of the backfill.

The commit itself stays exact: nothing comes between the last look and it.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import PurePosixPath

import pyarrow as pa

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, TableSpec
from dc_platform.errors import CommitConflictError, StoreUnavailableError
from dc_platform.lake.parquet import LANDED, DataFile
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot, files_sql, sql_list
from dc_platform.lake.turns import Turns
from dc_platform.landing.backfill_rows import KEY, Connection, silver_pieces, write_files

log = logging.getLogger(__name__)

# In turn the first one is not refused; out of turn (a frozen writer has it) one of a few is not.
_RETRIES = 20
# Commits that neither take a row from silver nor change one.
_HARMLESS = ("dcp.commit", "dcp.compaction", "dcp.tier")
# A file that is half as old as replaced files get is not committed; copied it is new.
_YOUNG = 0.25

_FRESH = f"""
    create or replace temp table fresh as
    select distinct source_id, event_id from rebuilt anti join today using ({KEY})
"""
# Landing leaves out what silver has: when that goes, it may have left out the event's only row.
_GOING = """
    create or replace temp table going as
    select distinct source_id, event_id from today anti join rebuilt using (source_id, event_id)
"""


class RebuiltDay:
    """A day as it was rebuilt at a snapshot of silver, kept valid at the ones that follow.

    `today`, `seen` and `rebuilt` of the connection are what was compared.
    """

    def __init__(
        self,
        lake: Lake,
        connection: Connection,
        table: LakeTable,
        day: date,
        *,
        bronze: Snapshot,
    ) -> None:
        self._lake = lake
        self._connection = connection
        self._table = table
        self._day = day
        self._version = table.version
        self._root = f"{table.uri}/"
        snapshot = table.snapshot()
        self._looked_at = {
            SILVER_EVENTS.name: set(snapshot.paths),
            BRONZE_EVENTS.name: set(bronze.paths),
        }
        self._compared = set(self._of_day(snapshot))
        # Merged files that have rows that were compared, and the others of their rows.
        self._mixed: set[str] = set()
        self._carried: list[DataFile] = []
        for statement in (_FRESH, _GOING):
            connection.execute(statement)

    def write(self, pieces: Iterator[pa.Table]) -> list[DataFile]:
        """The rows as files of silver; none of them gets old while the others are written."""
        files: list[DataFile] = []
        for file in write_files(self._lake, pieces, self._day):
            files = [*map(self._renewed, files), file]
        return files

    def commit(self, files: list[DataFile]) -> int | None:
        """Put `files` in place of what was compared; None, and they are removed, when the result no
        longer holds.
        """
        turns = Turns(self._lake, SILVER_EVENTS)
        for _ in range(_RETRIES):
            # What takes long is done before the turn: others wait for it.
            files = [self._renewed(file) for file in files]
            if not self._holds():
                break
            with turns.taken():
                if not self._holds():
                    break
                try:
                    return self._put([*files, *self._carried])
                except CommitConflictError as error:
                    log.info("%s; looking again", error)
                    # A store that repeats a put by itself may call a commit of ours taken.
                    self._table.refresh()
                    if self._live([*files, *self._carried]):
                        return self._table.version
        mine = [*files, *self._carried]
        live = self._live(mine)
        self._remove([file for file in mine if file not in live])
        return None

    def _live(self, files: list[DataFile]) -> list[DataFile]:
        live = set(self._table.snapshot().paths)
        return [file for file in files if self._root + file.path in live]

    def _put(self, files: list[DataFile]) -> int:
        old = self._compared.intersection(self._of_day(self._table.snapshot())) | self._mixed
        paths = {path.removeprefix(self._root) for path in old}
        return self._table.put_in_place(
            paths, files, metadata={"dcp.backfill": self._day.isoformat()}
        )

    def _holds(self) -> bool:
        """Move to the newest version of silver; whether the result is right there, too."""
        self._table.refresh()
        passed = self._table.version - self._version
        if not passed:
            return True
        since = self._table.history(passed)
        if len(since) < passed or not all(
            any(name in entry for name in _HARMLESS) for entry in since
        ):
            return False
        self._version += passed
        snapshot = self._table.snapshot()
        # Bronze after silver: it has every event that silver has, or left out.
        bronze = LakeTable(self._lake, BRONZE_EVENTS).snapshot()
        if self._has_come(SILVER_EVENTS, snapshot, "fresh", "today") or self._has_come(
            BRONZE_EVENTS, bronze, "going", "seen"
        ):
            return False
        self._carry(snapshot)
        return True

    def _has_come(self, spec: TableSpec, snapshot: Snapshot, identities: str, known: str) -> bool:
        """Whether files that were not yet looked at have one of the identities in a row that is not
        among the known ones (which compaction moves).
        """
        paths = [path for path in snapshot.paths if path not in self._looked_at[spec.name]]
        self._looked_at[spec.name].update(paths)
        [(wanted,)] = self._connection.execute(f"select count(*) from {identities}").fetchall()
        if not paths or not wanted:
            return False
        found = self._connection.execute(
            f"select 1 from (select source_id, event_id, {KEY} from read_parquet({sql_list(paths)}))"
            f" semi join {identities} using (source_id, event_id)"
            f" anti join {known} using ({KEY}) limit 1"
        ).fetchall()
        return bool(found)

    def _carry(self, snapshot: Snapshot) -> None:
        """Find the merged files that take the place of compared ones, and write their other rows."""
        merged = [
            path
            for path in self._of_day(snapshot)
            if path not in self._compared and not PurePosixPath(path).name.startswith(LANDED)
        ]
        mixed: set[str] = set()
        if merged:
            found = self._connection.execute(
                f"select distinct filename from read_parquet({sql_list(merged)}, filename = true)"
                f" semi join today using ({KEY})"
            ).fetchall()
            mixed = {path for (path,) in found}
        if mixed != self._mixed:
            self._remove(self._carried)
            self._mixed, self._carried = mixed, []
            if mixed:
                lacking = snapshot.lacking(SILVER_EVENTS)
                names = ", ".join(SILVER_EVENTS.file_schema.names)
                held = files_sql(SILVER_EVENTS, sorted(mixed), lacking, columns=names)
                rows = f"({held}) anti join today using ({KEY})"
                pieces = silver_pieces(self._connection, rows)
                self._carried = list(write_files(self._lake, pieces, self._day))

    def _of_day(self, snapshot: Snapshot) -> list[str]:
        days = snapshot.actions[f"partition.{SILVER_EVENTS.partition_by}"].to_pylist()
        return [path for path, day in zip(snapshot.paths, days, strict=True) if day == self._day]

    def _renewed(self, file: DataFile) -> DataFile:
        """The file, or a copy when it is no longer young: vacuum deletes what no commit names, and a
        day may take longer to write than that takes.
        """
        now = time.time_ns() // 1_000_000
        if now - file.modified_ms < self._table.keeps_seconds * 1000 * _YOUNG:
            return file
        content = self._lake.mapped(SILVER_EVENTS, file.path)
        if content is None or len(content) != file.size:
            raise CommitConflictError(f"{file.path} was deleted before it was committed; try again")
        path = str(PurePosixPath(file.path).with_name(f"{LANDED}{uuid.uuid4()}.parquet"))
        try:
            with self._lake.output(SILVER_EVENTS, path) as sink:
                sink.write(content)
        except OSError as error:
            raise StoreUnavailableError(f"copying {file.path} failed: {error}") from error
        self._remove([file])
        return replace(file, path=path, modified_ms=now)

    def _remove(self, files: list[DataFile]) -> None:
        for file in files:
            self._lake.remove(SILVER_EVENTS, file.path)
