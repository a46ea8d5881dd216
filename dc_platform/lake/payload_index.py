"""Beside each data file of silver that stays: in which rows a payload field has which value.

For the fields of DCP_INDEXED_FIELDS. A query for one value (`serving/needles.py`) then reads the few
rows that can have it, in place of the payloads of 30 days. Landing's compactor makes them, after the
files: 8 bytes for each row that has the field.

A cache and nothing more, in `_identities/` as those of identities are (`lake/identity_files.py`): it
goes with its data file, and one that is missing, damaged or of other fields is made anew from it. An
entry says that a row may have the value; whoever reads the row looks.

Layout, little-endian: magic, length and CRC-32C of the head (uint32 each); the head, JSON, then of each
field the first entry of each block, the blocks' CRC-32C, and the entries in ascending order (uint64: 32
bits of the value's hash, then the row). A block has 1,024 entries: a look at a file of 3,000,000 rows
reads and checks 8 KiB, in 10 µs.
"""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

import crc32c
import duckdb
import numpy as np
import numpy.typing as npt

from dc_platform.contracts.fields import json_path
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.origins import FOLDER
from dc_platform.lake.rewrite import COLD, SORTED, WARM, Cancellation
from dc_platform.lake.scratch import scratch
from dc_platform.lake.sql import sql_list, sql_text
from dc_platform.lake.store import Lake

log = logging.getLogger(__name__)

SUFFIX = ".fields"
# Files that compaction and tiers are done with.
STAY = (SORTED, WARM, COLD)
_MAGIC = b"DCPFLD01"
_START = struct.Struct("<8sII")
_BLOCK = 1024
_MEMORY = "256MB"
_BATCH_ROWS = 122_880
_HASH = 0xFFFF_FFFF_0000_0000
_ROW = np.uint64(0xFFFF_FFFF)

U64 = npt.NDArray[np.uint64]


def key_sql(text: str) -> str:
    """The hash of a text, the same for all texts of one number: filters compare as text and as number
    (`serving/conditions.py`).
    """
    number = f"try_cast({text} as double)"
    # 0.0: minus zero is zero.
    return f"case when isfinite({number}) then hash({number} + 0.0) else hash({text}) end"


@cache
def _probe() -> int:
    """Tells how DuckDB hashes: releases may differ, then what another one wrote is made anew."""
    with duckdb.connect() as connection:
        found = connection.execute("select xor(hash('dcp'), hash(1.5::double))").fetchall()
    return int(found[0][0])


class Field(NamedTuple):
    """The entries of a field, as they lie in a file that is mapped."""

    firsts: U64
    checksums: U64
    entries: U64

    def rows_of(self, key: int) -> U64 | None:
        """The rows whose value may have the hash `key`; None where the file is damaged."""
        # The method: the function takes three times as long, and there are hundreds of files.
        low, high = np.uint64(key & _HASH), np.uint64(key | 0xFFFF_FFFF)
        begin = max(0, int(self.firsts.searchsorted(low)) - 1)
        end = int(self.firsts.searchsorted(high, "right"))
        for block in range(begin, end):
            piece = self.entries[block * _BLOCK : (block + 1) * _BLOCK]
            if _checksum(piece) != self.checksums[block]:
                return None
        near = self.entries[begin * _BLOCK : end * _BLOCK]
        return near[near.searchsorted(low) : near.searchsorted(high, "right")] & _ROW


def read_index(lake: Lake, data_path: str) -> dict[str, Field] | None:
    """Path of a field, as DuckDB has it → its entries; None where there is nothing to go by."""
    content = lake.mapped(SILVER_EVENTS, _beside(data_path))
    if content is None or len(content) < _START.size:
        return None
    magic, length, checksum = _START.unpack_from(content)
    head = bytes(content[_START.size : _START.size + length])
    if magic != _MAGIC or crc32c.crc32c(head) != checksum:
        return None
    told = json.loads(head)
    if told["probe"] != _probe() or len(content) != _START.size + length + told["size"]:
        return None
    found: dict[str, Field] = {}
    place = _START.size + length
    for path, count, blocks_checksum in told["fields"]:
        blocks = -(-count // _BLOCK)
        if crc32c.crc32c(content[place : place + 16 * blocks]) != blocks_checksum:
            return None
        firsts, checksums = np.frombuffer(content, "<u8", 2 * blocks, place).reshape(2, -1)
        place += 16 * blocks
        found[path] = Field(firsts, checksums, np.frombuffer(content, "<u8", count, place))
        place += 8 * count
    return found


class PayloadIndex:
    """Makes the indexes of a lake's silver. `fields`: payload paths as people name them; `paths`: as
    DuckDB has them.
    """

    def __init__(self, lake: Lake, fields: Iterable[str]) -> None:
        self._lake = lake
        self.paths = list(dict.fromkeys(json_path(field) for field in fields))
        # Files with an index of these fields, and those that none could be made of.
        self._done: set[str] = set()

    def lacking(self, live: Sequence[str]) -> list[str]:
        """Those of the live files (relative to the table) that stay and lack an index of these
        fields.
        """
        self._done.intersection_update(live)
        stay = [path for path in live if PurePosixPath(path).name.startswith(STAY)]
        lacking = []
        for path in stay:
            if path not in self._done:
                if list(read_index(self._lake, path) or ()) == self.paths:
                    self._done.add(path)
                else:
                    lacking.append(path)
        return lacking

    def build(self, data_path: str, cancelled: Cancellation | None = None) -> None:
        """Make the index of a data file. A file or store that refuses costs the queries time, nothing
        else; what is cancelled is made another time.
        """
        cancelled = cancelled or Cancellation()
        self._done.add(data_path)
        try:
            with scratch(memory=_MEMORY, threads=1) as connection, cancelled.of(connection):
                columns = self._entries(connection, data_path)
            # Queries may have mapped the one before: written over, it would end them (SIGBUS).
            self._lake.remove(SILVER_EVENTS, _beside(data_path))
            with self._lake.output(SILVER_EVENTS, _beside(data_path)) as sink:
                for piece in _packed(dict(zip(self.paths, columns, strict=True))):
                    sink.write(piece)
        except (OSError, duckdb.Error) as error:
            self._lake.remove(SILVER_EVENTS, _beside(data_path))
            log.warning("%s has no index of payload fields: %s", data_path, error)

    def _entries(self, connection: duckdb.DuckDBPyConnection, data_path: str) -> list[U64]:
        full = f"{self._lake.uri_of(SILVER_EVENTS)}/{data_path}"
        columns = ", ".join(
            f"case when texts[{n}] is not null then ({key_sql(f'texts[{n}]')}) & {_HASH}::ubigint"
            f" | file_row_number::ubigint end as field_{n}"
            for n in range(1, len(self.paths) + 1)
        )
        listed = ", ".join(map(sql_text, self.paths))
        reader = connection.execute(
            f"select {columns} from (select file_row_number,"
            f" try(json_extract_string(payload, [{listed}])) as texts from read_parquet("
            f"{sql_list([full])}, file_row_number = true, hive_partitioning = false))"
        ).to_arrow_reader(_BATCH_ROWS)
        parts: list[list[U64]] = [[] for _ in self.paths]
        for batch in reader:
            for part, column in zip(parts, batch.columns, strict=True):
                part.append(column.drop_null().to_numpy())
        return [np.sort(np.concatenate([np.empty(0, np.uint64), *part])) for part in parts]


def _packed(fields: Mapping[str, U64]) -> list[bytes]:
    """The pieces of the file."""
    body: list[bytes] = []
    told: list[tuple[str, int, int]] = []
    for path, entries in fields.items():
        starts = range(0, len(entries), _BLOCK)
        sums = [_checksum(entries[at : at + _BLOCK]) for at in starts]
        blocks = entries[::_BLOCK].tobytes() + np.array(sums, "<u8").tobytes()
        told.append((path, len(entries), crc32c.crc32c(blocks)))
        body += [blocks, entries.tobytes()]
    head = json.dumps({"probe": _probe(), "size": sum(map(len, body)), "fields": told}).encode()
    # Words that lie across their places are copied before they are searched.
    head = head.ljust(-(-len(head) // 8) * 8)
    return [_START.pack(_MAGIC, len(head), crc32c.crc32c(head)), head, *body]


def _checksum(words: U64) -> int:
    return int(crc32c.crc32c(words.data.cast("B")))


def _beside(data_path: str) -> str:
    return f"{FOLDER}/{PurePosixPath(data_path).name}{SUFFIX}"
