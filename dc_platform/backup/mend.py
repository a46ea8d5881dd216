"""Bronze and quarantine get back what they lost, and lose nothing for it.

Below the offsets that the table had at a moment it becomes what it was then; beyond them it stays what
it is now. Its offsets stay, too: they only ever rise. So rows that no longer are in Kafka, and in no
other place, are never thrown away, and nothing has to land again. What a foreign hand added below those
offsets goes; what it took from beyond them does not come back (the check `every_accepted_event_landed`
names it).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

import pyarrow as pa

from dc_platform.backup.files import read, taken_in
from dc_platform.backup.restore import offsets_of
from dc_platform.contracts.tables import SILVER_QUARANTINE
from dc_platform.errors import CommitConflictError
from dc_platform.lake.moment import Moment, data_files
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.scratch import scratch
from dc_platform.lake.sql import file_sql
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, sql_list
from dc_platform.landing.backfill_rows import Connection, write_files

log = logging.getLogger(__name__)

# Landing commits beside it only through `dcp land`, which takes no lease.
_RETRIES = 10


class Mended(NamedTuple):
    """Version and rows of a table after it got back what it lost; rows before."""

    table: str
    version: int
    rows_before: int
    rows: int


def mend(lake: Lake, moment: Moment) -> Mended:
    """Give a table back what it had at the moment; raises CommitConflictError after many tries."""
    spec = moment.spec
    lake.ensure(spec)
    wanted = {file.path for file in moment.files}
    for _ in range(_RETRIES):
        table = LakeTable(lake, spec)
        before = table.snapshot()
        live = {file.path: file for file in data_files(spec, before)}
        coming = [file for file in moment.files if file.path not in live]
        others = [file for path, file in live.items() if path not in wanted]
        files = taken_in(lake, spec, moment.root, coming)
        with scratch() as connection:
            going, rest = _parted(connection, lake, moment, others, [*files, *_kept(live, wanted)])
        if not files and not going:
            return Mended(spec.name, table.version, before.rows, before.rows)
        said = {"dcp.mend": f"version {moment.version} of {moment.committed_at.isoformat()}"}
        # Offsets stand as they are; a table that was lost altogether gets those of the moment.
        missing = {app: at for app, at in moment.offsets.items() if table.txn(app) is None}
        try:
            table.put_in_place(going, [*files, *rest], metadata=said, txns=missing)
        except CommitConflictError as error:
            log.info("%s; looking again", error)
            for file in (*files, *rest):
                lake.remove(spec, file.path)
            continue
        return Mended(spec.name, table.version, before.rows, table.snapshot().rows)
    raise CommitConflictError(
        f"{spec.name} moved {_RETRIES} times while it was restored: try again"
    )


def _kept(live: dict[str, DataFile], wanted: set[str]) -> list[DataFile]:
    return [file for path, file in live.items() if path in wanted]


def _parted(
    connection: Connection,
    lake: Lake,
    moment: Moment,
    others: list[DataFile],
    restored: list[DataFile],
) -> tuple[set[str], list[DataFile]]:
    """Of the files that the moment did not have: those that go, and new ones with those rows of them
    that lie beyond the moment's offsets. Files of such rows alone stay.
    """
    if not others:
        return set(), []
    spec, root = moment.spec, lake.uri_of(moment.spec)
    offsets = offsets_of(moment.offsets)
    columns = [
        pa.array([topic for _, topic, _ in offsets], pa.string()),
        pa.array([partition for _, _, partition in offsets], pa.int32()),
        pa.array(list(offsets.values()), pa.int64()),
    ]
    names = ["topic_id", "kafka_partition", "next_offset"]
    connection.register("offsets", pa.table(columns, names=names))
    beyond = "kafka_offset >= coalesce(next_offset, 0)"
    if spec is SILVER_QUARANTINE and restored:
        # A rejected event that was lost, and was sent again since, would be there twice.
        ids = f"read_parquet({sql_list(f'{root}/{file.path}' for file in restored)})"
        beyond += f" and quarantine_id not in (select quarantine_id from {ids})"
    going: set[str] = set()
    rest: list[DataFile] = []
    for file in others:
        rows = (
            f"({file_sql(spec, f'{root}/{file.path}')})"
            " left join offsets using (topic_id, kafka_partition)"
        )
        counted = connection.execute(
            f"select count(*) filter (where {beyond}) from {rows}"
        ).fetchone()
        stays = int(counted[0]) if counted else 0
        if stays == file.rows:
            continue
        going.add(file.path)
        if stays:
            pieces = read(connection, spec, f"{rows} where {beyond}")
            rest += _written(lake, moment, pieces, file.partition)
    return going, rest


def _written(
    lake: Lake, moment: Moment, pieces: Iterator[pa.Table], day: date | None
) -> list[DataFile]:
    assert day is not None
    return list(write_files(lake, pieces, day, moment.spec))
