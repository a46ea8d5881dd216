"""The landing loop: reader → committer, for as long as the slot's lease is held.

The same loop runs as a Dagster run and as `dcp land --until-caught-up`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tenacity import (
    Retrying,
    before_sleep_log,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
)

from dc_platform.broker.client import RecordReader, ensure_topic
from dc_platform.broker.records import TopicInfo
from dc_platform.decode.columns import AnySource, KnownSources
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Policy
from dc_platform.errors import FencedError, RetriableError
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import Batch
from dc_platform.landing.commits import Committer, Landed, TableRows
from dc_platform.landing.compaction import Compactor
from dc_platform.landing.compaction_plan import CompactionPolicy
from dc_platform.landing.reader import BatchReader, Limits
from dc_platform.landing.rebuild import replay_bronze
from dc_platform.registry.sources import SourceHistory, Sources
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

_STORE_PATIENCE_SECONDS = 300
_BEHIND_SECONDS = 5.0


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
    """Lands all partitions of the topic, from where silver stands."""

    def __init__(
        self,
        settings: Settings,
        *,
        sources: Sources | None,
        owner: str,
        compacts: bool = True,
        reached: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._settings = settings
        self._reached = reached
        self.info = ensure_topic(
            settings.kafka_bootstrap,
            settings.topic,
            partitions=settings.topic_partitions,
            replication=settings.topic_replication,
        )
        self.lake = Lake(settings.lake)
        self._committer = Committer(
            self.lake,
            self.info,
            list(range(self.info.partitions)),
            identity_memory_mb=settings.identity_memory_mb,
            owner=owner,
            reached=reached,
        )
        self._decoder = decoder_for(settings, self.info, sources)
        # One writer of a lake compacts; the others' commits see a table that moved, and nothing new.
        self.compactor = self._compactor() if compacts else None
        self.totals = Totals()

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
        ends = self._prepare()
        offsets = {p: o for p, o in self._committer.offsets.items() if o is not None}
        reader = BatchReader(
            self._connect,
            self._decoder,
            offsets,
            Limits(
                self._settings.landing_rows,
                self._settings.landing_bytes,
                self._settings.landing_seconds,
            ),
            reached=self._reached,
        )
        reader.start()
        try:
            while not stop.is_set():
                batch = reader.next(timeout=0.1)
                if batch is not None:
                    self.totals.add(batch, self._land(batch))
                    progress(self.totals)
                elif idle_after():
                    return Ended.IDLE
                if self.compactor is not None:
                    self.compactor.step(self._committer, behind=_is_behind(batch))
                if until_caught_up and self._reached_ends(ends):
                    return Ended.CAUGHT_UP
            return Ended.STOPPED
        except FencedError as error:
            log.warning("%s", error)
            return Ended.FENCED
        finally:
            reader.stop()
            self.close()

    def refresh(self) -> None:
        """Look again where the tables stand; called when another writer may have gone on."""
        self._committer.refresh()

    def close(self) -> None:
        """Stop the writer threads; a merge of files that is under way is dropped."""
        if self.compactor is not None:
            self.compactor.close()
        self._committer.close()

    def rows(self) -> TableRows:
        """Rows of bronze and, by ingest date, of silver and quarantine, as the log says."""
        return self._committer.rows()

    def lag(self) -> dict[int, int]:
        """Partition → offsets between what is landed and the end of the log."""
        reader = self._connect()
        try:
            ends = reader.end_offsets()
        finally:
            reader.close()
        done = self._committer.offsets
        return {p: max(0, end - (done.get(p) or 0)) for p, end in ends.items()}

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
            reached=self._reached,
        )

    def _connect(self) -> RecordReader:
        return RecordReader(self._settings.kafka_bootstrap, self.info)

    def _prepare(self) -> dict[int, int]:
        """Find where to begin, and land from bronze what Kafka has already deleted."""
        reader = self._connect()
        try:
            begins, ends = reader.beginning_offsets(), reader.end_offsets()
        finally:
            reader.close()
        self._committer.begin(begins)
        for batch in replay_bronze(self.lake, self.info, self._committer, kafka_begins=begins):
            self.totals.add(batch, self._land(batch))
        return ends

    def _reached_ends(self, ends: dict[int, int]) -> bool:
        done = self._committer.offsets
        return all((done.get(p) or 0) >= end for p, end in ends.items())

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
                return self._committer.land(batch)
        raise AssertionError("unreachable: the last attempt raises")


def _is_behind(batch: Batch | None) -> bool:
    """Whether landing has more to do than it can: then files wait."""
    if batch is None or batch.oldest_ms is None:
        return False
    return time.time() - batch.oldest_ms / 1000 > _BEHIND_SECONDS


def decoder_for(settings: Settings, info: TopicInfo, sources: Sources | None) -> Decoder:
    """The decoder that landing and the tail share."""
    known: KnownSources = AnySource()
    if settings.unknown_sources == "quarantine" and sources is not None:
        known = SourceHistory(sources)
    policy = Policy(settings.future_limit_ms, settings.max_event_bytes)
    return Decoder(info.topic_id, known, policy)
