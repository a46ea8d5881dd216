"""A batch, and how its judged rows become rows of the three tables. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts import blocks
from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TIMESTAMP,
    TableSpec,
)
from dc_platform.landing.counted import Counted

Mask = npt.NDArray[np.bool_]


class Range(NamedTuple):
    """Offsets [start, end) of one Kafka partition."""

    start: int
    end: int


class Gap(NamedTuple):
    """Offsets [start, end) that Kafka deleted before they landed."""

    partition: int
    start: int
    end: int


@dataclass(frozen=True)
class Batch:
    """Judged rows, and which offsets they cover: everything within the ranges, nothing beyond."""

    judged: pa.Table
    ranges: dict[int, Range]
    bytes: int
    # Broker's append time of the oldest record, epoch milliseconds; None for an empty batch.
    oldest_ms: int | None = None
    gaps: list[Gap] = field(default_factory=list)
    # What the records said about themselves; None when they were not read from Kafka.
    counted: dict[int, Counted] | None = None


@dataclass(frozen=True)
class Landed:
    """What one landing did, in rows."""

    received: int
    landed: int
    duplicates: int
    rejected: int
    sampled: int
    silver_version: int
    processed_at: datetime
    # Deleted before, and sent again.
    deleted: int = 0


@dataclass(frozen=True)
class TableRows:
    """Rows of the tables; of silver and quarantine by ingest date. Bytes of the three."""

    bronze: int
    silver: dict[str, int]
    quarantine: dict[str, int]
    bytes: tuple[int, int, int] = (0, 0, 0)


def below(judged: pa.Table, offsets: dict[int, int]) -> Mask:
    """Rows whose address lies below the given next offset of their partition."""
    if not offsets or not len(judged):
        return np.zeros(len(judged), bool)
    limits = np.zeros(max(max(offsets), _top(judged)) + 1, np.int64)
    for partition, offset in offsets.items():
        limits[partition] = offset
    partitions = judged["kafka_partition"].to_numpy()
    mask: Mask = judged["kafka_offset"].to_numpy() < limits[partitions]
    return mask


def _top(judged: pa.Table) -> int:
    return int(pc.max(judged["kafka_partition"]).as_py() or 0)


def is_valid(judged: pa.Table) -> Mask:
    """Rows with the verdict `valid`."""
    return has_verdict(judged, blocks.VALID)


def has_verdict(judged: pa.Table, wanted: str) -> Mask:
    """Rows with this verdict."""
    verdict = judged["verdict"]
    if pa.types.is_dictionary(verdict.type):
        verdict = verdict.cast(pa.string())
    mask: Mask = pc.equal(verdict, wanted).to_numpy().astype(bool)
    return mask


def by_verdict(judged: pa.Table) -> tuple[pa.Table, pa.Table]:
    """(accepted, rejected) rows; what was deleted or left out by sampling is in neither."""
    valid = is_valid(judged)
    if valid.all():
        return judged, judged.slice(0, 0)
    return mask_rows(judged, valid), mask_rows(judged, has_verdict(judged, blocks.REJECTED))


def rows_for(spec: TableSpec, judged: pa.Table, processed_at: datetime) -> pa.Table:
    """The columns of `spec` for `judged`, all of them processed at one time."""
    size = len(judged)
    at = pa.array(np.full(size, int(processed_at.timestamp() * 1_000_000)), TIMESTAMP)
    names = spec.file_schema.names
    arrays = [at if name == "processed_at" else judged[name] for name in names]
    return pa.table(arrays, names=names)


def mask_rows(table: pa.Table, mask: Mask) -> pa.Table:
    """`table` without the rows that are not in `mask`; costs nothing when all are."""
    return table if mask.all() else table.filter(pa.array(mask))


def select_for(spec: TableSpec, judged: pa.Table) -> pa.Table:
    """`judged` without the columns that the table does not have: filtering copies what is left."""
    names = spec.file_schema.names
    return judged.select([name for name in judged.column_names if name in names])


def bronze_rows(judged: pa.Table, processed_at: datetime) -> pa.Table:
    """Every judged row."""
    return rows_for(BRONZE_EVENTS, judged, processed_at)


def silver_rows(judged: pa.Table, processed_at: datetime) -> pa.Table:
    """Rows that are valid and not yet landed; the caller has filtered."""
    return rows_for(SILVER_EVENTS, judged, processed_at)


def quarantine_rows(judged: pa.Table, processed_at: datetime) -> pa.Table:
    """Rows that are rejected and not yet kept; the caller has filtered."""
    return rows_for(SILVER_QUARANTINE, judged, processed_at)


def scopes_of(judged: pa.Table) -> npt.NDArray[np.int64]:
    """The dedup scopes of all rows."""
    scopes: npt.NDArray[np.int64] = judged["dedup_scope"].to_numpy().astype(np.int64)
    return scopes
