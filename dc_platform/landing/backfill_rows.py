"""The rows of a backfill while it runs: events in files on disk, what is compared of them in DuckDB.

DuckDB holds 2,048 rows at a time whatever they hold, and those of a table that it joins or counts
twice over: at 1 MB an event each is 2 GB. So it gets digests in place of payloads and tags, and the
events themselves are read again for the files of silver, a piece of 32 MiB at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.contracts.tables import JUDGED, SILVER_EVENTS, TableSpec
from dc_platform.lake.parquet import DataFile, write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import is_valid, mask_rows
from dc_platform.landing.pieces import bronze_rows
from dc_platform.landing.rebuild import judged_from_bronze

Connection = duckdb.DuckDBPyConnection

ADDRESS = ["topic_id", "kafka_partition", "kafka_offset", "kafka_index"]
KEY = ", ".join(ADDRESS)
# When a row was written says nothing about what it holds.
CONTENT = [name for name in SILVER_EVENTS.file_schema.names if name != "processed_at"]
# Rows with digests in place of what may be large.
DIGESTS = "* replace (md5(payload) as payload, md5(tags::varchar) as tags)"
# One of the files that are written holds as much at most, in memory, and a piece more.
_FILE_BYTES = 96 * 2**20
_FILE_ROWS = 500_000
# Fewer rows than this DuckDB does not hand out.
_READ_ROWS = 2_048


class Judged:
    """Valid events of bronze of a day in the columns of silver: in files of a folder, piece by
    piece, and in `judged` of the connection with digests and the number of their piece. `seen` has
    the addresses of all of them.
    """

    def __init__(self, connection: Connection, folder: str) -> None:
        self._connection = connection
        self._folder = Path(folder)
        self._pieces = 0
        empty = JUDGED.empty_table()
        for table, query in (
            ("judged", f"select {DIGESTS}, 0 as piece from piece"),
            ("seen", f"select {KEY} from piece"),
        ):
            connection.register("piece", empty.select(CONTENT))
            connection.execute(f"create or replace temp table {table} as {query}")

    def read(self, bronze: LakeTable, day: date) -> None:
        """Fill it from bronze."""
        condition = f"ingest_date = date '{day.isoformat()}'"
        for rows in bronze_rows(bronze, condition):
            self._connection.register("piece", rows.select(ADDRESS))
            self._connection.execute("insert into seen select * from piece")
            judged = judged_from_bronze(mask_rows(rows, is_valid(rows))).select(CONTENT)
            self._connection.register("piece", judged)
            self._connection.execute(
                f"insert into judged select {DIGESTS}, {self._pieces} from piece"
            )
            pq.write_table(judged, self._path(self._pieces), compression="lz4")
            self._pieces += 1
        self._connection.unregister("piece")

    def rebuilt(self) -> Iterator[pa.Table]:
        """The rows that `rebuilt` names, in order but for those that are kept as silver has them."""
        names = ", ".join(f"e.{name}" for name in CONTENT)
        for number in range(self._pieces):
            yield self._connection.execute(
                f"select {names}, r.processed_at from read_parquet('{self._path(number)}') e"
                f" join rebuilt r using ({KEY}) where r.piece = {number} order by {KEY}"
            ).to_arrow_table()
        kept = f"silver_today semi join elsewhere using ({KEY})"
        yield from silver_pieces(self._connection, kept)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.parquet"


def silver_pieces(connection: Connection, rows: str) -> Iterator[pa.Table]:
    """Rows as silver had them, in pieces."""
    names = ", ".join(SILVER_EVENTS.file_schema.names)
    reader = connection.execute(f"select {names} from {rows}").to_arrow_reader(_READ_ROWS)
    for piece in reader:
        yield pa.Table.from_batches([piece])


def write_files(
    lake: Lake, pieces: Iterator[pa.Table], day: date, spec: TableSpec = SILVER_EVENTS
) -> Iterator[DataFile]:
    """The rows of the pieces as files of silver, or of another table with ingest dates."""
    held: list[pa.Table] = []
    for piece in pieces:
        if len(piece):
            held.append(piece.select(spec.file_schema.names).cast(spec.file_schema))
        if sum(map(len, held)) >= _FILE_ROWS or sum(t.nbytes for t in held) >= _FILE_BYTES:
            yield write_file(lake, spec, pa.concat_tables(held), partition=day)
            held = []
    if held:
        yield write_file(lake, spec, pa.concat_tables(held), partition=day)
