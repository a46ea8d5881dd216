"""The landing loop of one slot: reader → committer, for as long as the slot's lease is held.

The same loop runs as a Dagster run and as `dcp land --until-caught-up`. It goes on with a topic that
got more partitions, and with one that was deleted and created again.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

import pyarrow as pa
from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
)

from dc_platform.broker.client import ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import RecordReader, TopicInfo
from dc_platform.contracts.floors import NO_FLOORS, KnownFloors
from dc_platform.decode.columns import AnySource, KnownSources
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Policy
from dc_platform.errors import (
    BrokerUnavailableError,
    FatalError,
    FencedError,
    RetriableError,
    TopicChangedError,
)
from dc_platform.lake.gaps import DELETED, KnownGap, record_gaps
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import Batch, Landed, TableRows
from dc_platform.landing.commits import Committer
from dc_platform.landing.compaction import Compactor
from dc_platform.landing.compaction_plan import CompactionPolicy
from dc_platform.landing.failing import report_failures
from dc_platform.landing.lateness import Lateness
from dc_platform.landing.pacing import Pacing
from dc_platform.landing.reader import BatchReader
from dc_platform.landing.rebuild import replay_bronze
from dc_platform.landing.slots import Slot
from dc_platform.points import Point, Reached, armed
from dc_platform.settings import Settings

if TYPE_CHECKING:
    from dc_platform.registry.sources import Sources

log = logging.getLogger(__name__)

_STORE_PATIENCE_SECONDS = 300
# Until what one client of Kafka has noticed is known to the others.
_SETTLE_SECONDS = 0.5
# Objects between two looks for garbage: some 10 MB.
_COLLECT_AFTER = 100_000


@cache
def _tune_process() -> None:
    """Spare the processor what costs a landing process a third of its time and brings it nothing."""
    # Arrow's own allocator gives memory back at once and takes it anew, a fault for every 4 KiB.
    pa.set_memory_pool(pa.system_memory_pool())
    # Records and events are objects that make no cycles, by the hundred thousand: with the usual
    # threshold of 700 the collector looked at all of them again and again (a quarter of the time of
    # plain JSON records). Modules need not be looked at either.
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


class Ended(StrEnum):
    """Why a landing loop ended."""

    CAUGHT_UP = "caught up"
    STOPPED = "stopped"
    IDLE = "idle"
    FENCED = "fenced"


@dataclass
class Totals:
    """What a loop has done so far. Rows, seconds."""

    received: int = 0
    landed: int = 0
    duplicates: int = 0
    rejected: int = 0
    deleted: int = 0
    sampled: int = 0
    commits: int = 0
    bytes: int = 0
    silver_version: int = -1
    days: set[str] = field(default_factory=set)
    offsets: dict[int, int] = field(default_factory=dict)
    gaps: int = 0
    last: datetime | None = None
    # (when, rows landed, seconds from the broker's append to the commit) of recent commits
    recent: list[tuple[datetime, int, float]] = field(default_factory=list)

    def add(self, batch: Batch, landed: Landed) -> None:
        """Count one landing."""
        self.received += landed.received
        self.landed += landed.landed
        self.duplicates += landed.duplicates
        self.rejected += landed.rejected
        self.deleted += landed.deleted
        self.sampled += landed.sampled
        self.commits += 1
        self.bytes += batch.bytes
        self.gaps += len(batch.gaps)
        self.silver_version = landed.silver_version
        self.days.add(landed.processed_at.date().isoformat())
        self.offsets.update({p: r.end for p, r in batch.ranges.items()})
        self.last = landed.processed_at
        if batch.oldest_ms is not None:
            delay = max(0.0, time.time() - batch.oldest_ms / 1000)
            self.recent = [*self.recent[-299:], (landed.processed_at, landed.landed, delay)]


class Lander:
    """Lands the slot's partitions of the topic, from where silver stands.

    Raises ConfigurationError when the slot has none.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        sources: Sources | None,
        owner: str,
        slot: Slot = Slot(),  # noqa: B008
        compacts: bool = True,
        reached: Reached | None = None,
    ) -> None:
        self._settings = settings
        self._sources = sources
        self._owner = owner
        self._reached = reached or armed(settings.crash_at)
        self.slot = slot
        self._compacts = compacts and slot.compacts
        self.lake = Lake(settings.lake)
        self.totals = Totals()
        # The ends of the slot's partitions as Kafka named them last.
        self._ends: dict[int, int] = {}
        _tune_process()
        self._begin_with(self._describe())

    def _describe(self) -> TopicInfo:
        return ensure_topic(
            self._settings.kafka_bootstrap,
            self._settings.topic,
            partitions=self._settings.topic_partitions,
            replication=self._settings.topic_replication,
        )

    def _begin_with(self, info: TopicInfo) -> None:
        self.info = info
        self._committer = Committer(
            self.lake,
            info,
            self.slot.partitions(info.partitions),
            identity_memory_mb=self._settings.identity_memory_mb,
            spill_directory=self._settings.data_dir.absolute() / "identities",
            owner=self._owner,
            reached=self._reached,
        )
        self._committer.read_ahead()
        self._decoder = decoder_for(self._settings, info, self._sources)
        # One writer of a lake compacts; the others' commits see a table that moved, and nothing new.
        self.compactor = self._compactor() if self._compacts else None

    def run(
        self,
        stop: threading.Event,
        *,
        until_caught_up: bool = False,
        idle_after: Callable[[], bool] = lambda: False,
        progress: Callable[[Totals], None] = lambda totals: None,
    ) -> Ended:
        """Land until `stop`, until all that Kafka has now is landed, or until idle and allowed to
        end. A commit that has begun is always finished.
        """
        pacing = Pacing(
            self._settings.landing_freshness_seconds,
            self._settings.landing_file_mb * 2**20,
            draining=until_caught_up,
        )

        def loop() -> Ended:
            ends = self._prepare()
            lateness = Lateness()
            with self._reading(pacing) as reader:
                while not stop.is_set():
                    batch = reader.next(timeout=0.1)
                    if batch is not None:
                        self._land_paced(batch, pacing)
                        lateness.landed(batch.oldest_ms)
                        progress(self.totals)
                    elif idle_after():
                        return Ended.IDLE
                    if self.compactor is not None:
                        self.compactor.step(self._committer, behind=lateness.behind)
                    if until_caught_up and self._reached_ends(ends):
                        return Ended.CAUGHT_UP
                return Ended.STOPPED

        try:
            while True:
                try:
                    return loop()
                except (TopicChangedError, FatalError) as error:
                    # A reader may meet the records of another topic before it knows that it is one.
                    if not self._follow_topic(stop) and isinstance(error, FatalError):
                        raise
        except FencedError as error:
            log.warning("%s", error)
            return Ended.FENCED
        finally:
            self.close()

    @contextmanager
    def _reading(self, pacing: Pacing) -> Iterator[BatchReader]:
        offsets = {p: o for p, o in self._committer.offsets.items() if o is not None}
        reader = BatchReader(self._connect, self._decoder, offsets, pacing, reached=self._reached)
        reader.start()
        try:
            yield reader
        finally:
            reader.stop()

    def _follow_topic(self, stop: threading.Event) -> bool:
        """Look at the topic anew and go on with it as it is; whether it is another than it was."""
        stop.wait(_SETTLE_SECONDS)
        try:
            now = self._describe()
        except BrokerUnavailableError as error:
            log.warning("%s", error)
            return False
        before = self.info
        if now == before:
            return False
        if now.topic_id == before.topic_id:
            log.warning("topic %s has %d partitions now", now.name, now.partitions)
            self._committer.widen(now, self.slot.partitions(now.partitions))
            self.info = now
            return True
        self._record_deletion()
        self.close()
        self._begin_with(now)
        self.totals.offsets.clear()
        log.warning("topic %s was created again: landing it from its beginning", now.name)
        return True

    def _record_deletion(self) -> None:
        """Put on record what the topic is known to have had when it was deleted, and is in no table."""
        done = self._committer.offsets
        gaps = [
            KnownGap(self.info.topic_id, p, done[p] or 0, end, DELETED)
            for p, end in self._ends.items()
            if end > (done[p] or 0)
        ]
        if gaps:
            log.error("topic %s was deleted before this landed: %s", self.info.name, gaps)
            record_gaps(self.lake, gaps, datetime.now(UTC))
            self.totals.gaps += len(gaps)

    def refresh(self) -> None:
        """Look again where the tables stand; called when another writer may have gone on."""
        self._committer.refresh()

    def close(self) -> None:
        """Wait for the threads that read ahead and write; a merge that is under way is dropped."""
        if self.compactor is not None:
            self.compactor.close()
        self._committer.close()

    def rows(self) -> TableRows:
        """Rows of bronze and, by ingest date, of silver and quarantine, as the log says."""
        return self._committer.rows()

    def lag(self) -> dict[int, int]:
        """Partition of this slot → offsets between what is landed and the end of the log."""
        reader = self._connect()
        try:
            self._ends = self._own(reader.end_offsets())
        finally:
            reader.close()
        done = self._committer.offsets
        return {p: max(0, end - (done.get(p) or 0)) for p, end in self._ends.items()}

    def _own(self, offsets: Mapping[int, int]) -> dict[int, int]:
        return {p: offset for p, offset in offsets.items() if self.slot.has(p)}

    def _compactor(self) -> Compactor:
        settings = self._settings
        return Compactor(
            self.lake,
            CompactionPolicy(
                target_bytes=settings.compaction_file_mb * 2**20,
                hour_seconds=settings.compaction_hour_seconds,
            ),
            self._committer.identity_files,
            log_commits=settings.log_commits,
            keep_seconds=round(settings.removed_files_minutes * 60),
            indexed_fields=settings.index_fields,
            reached=self._reached,
        )

    def _connect(self) -> RecordReader:
        settings = self._settings
        return reader_for(settings.kafka_bootstrap, self.info, settings.kafka_client)

    def _prepare(self) -> dict[int, int]:
        """Find where to begin, and land from bronze what Kafka has already deleted."""
        reader = self._connect()
        try:
            begins, ends = map(self._own, (reader.beginning_offsets(), reader.end_offsets()))
        finally:
            reader.close()
        self._ends = ends
        self._committer.begin(begins)
        for batch in replay_bronze(self.lake, self.info, self._committer, kafka_begins=begins):
            self._reached(Point.BRONZE_READ)
            self.totals.add(batch, self._land(batch))
        return ends

    def _reached_ends(self, ends: dict[int, int]) -> bool:
        done = self._committer.offsets
        return all((done.get(p) or 0) >= end for p, end in ends.items())

    def _land_paced(self, batch: Batch, pacing: Pacing) -> None:
        begun = time.monotonic()
        pacing.committing()
        self.totals.add(batch, self._land(batch))
        pacing.committed(time.monotonic() - begun, batch.bytes, self._committer.file_bytes)

    def _land(self, batch: Batch) -> Landed:
        """Land a batch; a store that fails is tried again, ever more slowly, for five minutes."""
        for attempt in Retrying(
            retry=retry_if_exception_type(RetriableError),
            wait=wait_exponential(multiplier=0.2, max=10),
            stop=stop_after_delay(_STORE_PATIENCE_SECONDS),
            before_sleep=before_sleep_log(log, logging.WARNING),
            reraise=True,
        ):
            with attempt:
                report_failures(self._sources, batch.judged)
                return self._committer.land(batch)
        raise AssertionError("unreachable: the last attempt raises")


def decoder_for(settings: Settings, info: TopicInfo, sources: Sources | None) -> Decoder:
    """The decoder that landing and the tail share."""
    known: KnownSources = AnySource()
    floors: KnownFloors = NO_FLOORS
    if settings.unknown_sources == "quarantine" and sources is not None:
        # SQLAlchemy takes 0.3 s to import; who accepts every source has no use for it.
        from dc_platform.registry.retention import FloorHistory, Retention
        from dc_platform.registry.sources import SourceHistory

        known = SourceHistory(sources)
        floors = FloorHistory(Retention(sources.database))
    policy = Policy(settings.future_limit_ms, settings.max_event_bytes, settings.late_ms, floors)
    return Decoder(info.topic_id, known, policy)
