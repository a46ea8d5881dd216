"""From the acks topic into `ops.acks`, each block once.

The recipe is silver's: the txn in the commit is the offset to go on from, and the commit is exact, so
two who do it at once leave one of them refused. A gateway that crashed between shipping and forgetting
ships a line again; it is known by its block and left out. The files of a closed day become one.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.broker.client import describe_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import RecordReader, Records, TopicInfo
from dc_platform.contracts.acks import Ack, read_acks
from dc_platform.contracts.identity import HOUR_MS
from dc_platform.contracts.ops_tables import ACKS
from dc_platform.errors import BrokerUnavailableError, CommitConflictError, PlatformError
from dc_platform.lake.origins import keep_origin
from dc_platform.lake.parquet import read_batches, write_file
from dc_platform.lake.rewrite import Cancellation, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import app_id
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

# Of the lines of one commit: some 300,000 blocks.
_BYTES = 64 * 2**20
# Of one merge: their removals are lines of the log.
_MOST_FILES = 512
_PATIENCE_SECONDS = 30.0
_RETRIES = 5
# The log keeps 200 commits at least: of a landing every five minutes those of 16 hours.
_HISTORY = 300
_REMEMBERED = timedelta(days=1)
_LOST = "dcp.lost"
_EXPIRED = (
    "Kafka deleted lines {} to {} of the acks topic before they were read, so blocks that they named"
    " and that are lost, too, are not missed: raise retention.ms of the topic, and let the job"
    " `checks` run (this is said for a day)"
)
_NO_TOPIC = (
    "the topic {} is gone, so nobody knows what was acknowledged since: is a gateway running? It makes"
    " the topic anew as soon as it has lines to ship"
)
# Hours older than that are settled; see lake/ledger.py.
KEPT_DAYS = 90


@dataclass(frozen=True)
class AcksLanded:
    """Rows that were added, lines that were no acknowledgement, and what cannot be told."""

    rows: int = 0
    damaged: int = 0
    # Why what was acknowledged may be more than what is in the table; empty when it is not.
    doubts: tuple[str, ...] = ()


def land_acks(
    settings: Settings, lake: Lake, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AcksLanded:
    """Land what the acks topic has now; raises BrokerUnavailableError, CommitConflictError."""
    lake.ensure(ACKS)
    info = describe_topic(settings.kafka_bootstrap, settings.acks_topic)
    if info is None:
        # A gateway makes it before its first line: where none has ever run there is nothing to tell.
        known = LakeTable(lake, ACKS).version > 0
        return AcksLanded(doubts=(_NO_TOPIC.format(settings.acks_topic),) if known else ())
    for _ in range(_RETRIES):
        reader = reader_for(settings.kafka_bootstrap, info, settings.kafka_client)
        try:
            return _Landing(lake, info, clock).run(reader)
        except CommitConflictError as error:
            log.info("another one landed acknowledgements meanwhile: %s", error)
        finally:
            reader.close()
    raise CommitConflictError("ops.acks: too many conflicting commits; trying again later")


class _Landing:
    def __init__(self, lake: Lake, info: TopicInfo, clock: Callable[[], datetime]) -> None:
        self._lake = lake
        self._info = info
        self._clock = clock
        self._table = LakeTable(lake, ACKS)
        self._rows = 0
        self._damaged = 0

    def run(self, reader: RecordReader) -> AcksLanded:
        ends, begins = reader.end_offsets(), reader.beginning_offsets()
        for partition, end in ends.items():
            known = self._table.txn(app_id(ACKS, self._info, partition))
            done = known or 0
            if begins[partition] > done:
                self._lose(partition, known, begins[partition])
            self._land(reader, partition, max(done, begins[partition]), end)
        self._forget()
        self._merge()
        return AcksLanded(self._rows, self._damaged, tuple(self._lost_lately()))

    def _lose(self, partition: int, known: int | None, begin: int) -> None:
        """Go on where Kafka begins. Of a topic that was read before, that is put on record; what one
        had that is met for the first time was of the time before the table.
        """
        why = _EXPIRED.format(known or 0, begin - 1)
        log.error("%s", why)
        metadata = {} if known is None else {_LOST: why}
        txns = {app_id(ACKS, self._info, partition): begin}
        self._table.commit([], txns=txns, exact=True, metadata=metadata)

    def _lost_lately(self) -> list[str]:
        """What the log has on record, of the last day: 288 landings at the most."""
        since = (self._clock() - _REMEMBERED).timestamp() * 1000
        log_entries = self._table.history(_HISTORY)
        return [e[_LOST] for e in log_entries if _LOST in e and e["timestamp"] >= since]

    def _land(self, reader: RecordReader, partition: int, start: int, end: int) -> None:
        reader.assign({partition: start})
        position = start
        values: list[bytes] = []
        size = 0
        moved = time.monotonic()
        while position < end:
            poll = reader.poll(1000)
            records = Records.of(poll.records)
            values += records.values
            size += int(records.sizes.sum())
            before, position = position, reader.positions([partition])[partition]
            if position >= end or size > _BYTES:
                self._commit(values, partition, position)
                values, size = [], 0
            if position > before:
                moved = time.monotonic()
            elif time.monotonic() - moved > _PATIENCE_SECONDS:
                # The poll of a broker that died is as empty as that of an idle one.
                raise BrokerUnavailableError(f"nothing came from {self._info.name}: dcp status")

    def _commit(self, values: Sequence[bytes], partition: int, position: int) -> None:
        acks: dict[str, Ack] = {}
        for ack in read_acks(values):
            if ack is None:
                self._damaged += 1
            else:
                acks.setdefault(ack.block, ack)
        at = self._clock()
        rows = ack_rows(list(acks.values()), at)
        rows = rows.filter(pc.invert(pc.is_in(rows["block_id"], self._known(rows))))
        files = [write_file(self._lake, ACKS, rows, partition=at.date())] if len(rows) else []
        self._table.commit(files, txns={app_id(ACKS, self._info, partition): position}, exact=True)
        self._rows += len(rows)

    def _known(self, rows: pa.Table) -> pa.Array:
        """Blocks that the table has of the time of `rows`: a line that comes again says the same."""
        if not len(rows):
            return pa.array([], pa.string())
        times = pc.min_max(rows["acked_at"].cast(pa.int64())).as_py()
        near = self._table.snapshot().overlapping("acked_at", [(times["min"], times["max"])])
        # Of a day's file, millions of blocks, only those that are asked for are held.
        pieces = (p["block_id"] for path in near.paths for p in read_batches(path, ["block_id"]))
        found = [piece.filter(pc.is_in(piece, rows["block_id"])) for piece in pieces]
        return pa.chunked_array(found, pa.string())

    def _forget(self) -> None:
        """Remove days that nothing is computed from any more."""
        last = self._clock().date() - timedelta(days=KEPT_DAYS)
        days = self._table.snapshot().actions["partition.ingest_date"].to_pylist()
        for day in sorted({day for day in days if day < last}):
            self._table.replace(day, [], metadata={"dcp.forgotten": day.isoformat()})

    def _merge(self) -> None:
        """One file of a closed day's 288, a day at a time: 90 days would be 26,000 files, which each
        look at the table reads. One that commits meanwhile wins, and the next landing merges.
        """
        actions = self._table.snapshot().actions
        days: dict[date, list[str]] = defaultdict(list)
        for path, day in zip(actions["path"], actions["partition.ingest_date"], strict=True):
            days[day.as_py()].append(path.as_py())
        today = self._clock().date()
        open_days = [day for day, paths in days.items() if day < today and len(paths) > 1]
        if not open_days:
            return
        day = min(open_days)
        paths = sorted(days[day])[:_MOST_FILES]
        try:
            file = merge_files(
                self._lake, ACKS, paths, day, ordered=False, cancelled=Cancellation()
            )
            keep_origin(self._lake, ACKS, file.path, paths)
            # A file whose commit was refused is left to vacuum: a store that repeats a put may have
            # committed it.
            self._table.rewrite(paths, file, metadata={"dcp.merged": str(len(paths))})
        except PlatformError as error:
            log.info("acknowledgements of %s are merged later: %s", day, error)


def ack_rows(acks: Sequence[Ack], at: datetime) -> pa.Table:
    """Rows of `ops.acks`: one per block, source and hour."""
    rows = [(ack, count) for ack in acks for count in ack.counts]
    columns = {
        "tenant_id": [ack.tenant for ack, _ in rows],
        "source_id": [count.source_id for _, count in rows],
        "hour": [count.hour * HOUR_MS * 1000 for _, count in rows],
        "block_id": [ack.block for ack, _ in rows],
        "verdict": [ack.verdict for ack, _ in rows],
        "events": [count.events for _, count in rows],
        "topic_id": [ack.topic_id for ack, _ in rows],
        "kafka_partition": [ack.partition for ack, _ in rows],
        "kafka_offset": [ack.offset for ack, _ in rows],
        "acked_at": [ack.at_ms * 1000 for ack, _ in rows],
        "processed_at": [at] * len(rows),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in ACKS.file_schema]
    return pa.table(arrays, schema=ACKS.file_schema)
