"""The tail: what Kafka has and silver does not, through landing's own decoder.

One thread reads Kafka from silver's border on, judges the records as landing will, drops what is a
duplicate of silver or of the earlier tail, and publishes views. When silver moves, the rows that it
now covers leave the tail; a row after the border whose identity silver got from another address (the
same event in two partitions) leaves it too.

While Kafka is away the tail keeps what it has. When it has to begin anew (another topic, a store that
failed in the middle of a step), the last view stays, as not complete, until the new tail holds all
that Kafka has: what a query has seen does not vanish for a while.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import replace

import pyarrow as pa

from dc_platform.broker.client import ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import Poll, RecordReader, Records, TopicInfo
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import (
    BrokerUnavailableError,
    FencedError,
    PlatformError,
    StoreUnavailableError,
    TopicChangedError,
)
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, Snapshot
from dc_platform.landing.batch import below, is_valid, mask_rows, scopes_of
from dc_platform.landing.batch_commit import epoch_of, next_offset
from dc_platform.landing.deleted import DeletedIdentities
from dc_platform.landing.identities import IdentityIndex
from dc_platform.landing.keys import KeyMaker
from dc_platform.landing.lander import decoder_for
from dc_platform.landing.ordered import Ordered
from dc_platform.registry.sources import Sources
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.pile import Pile
from dc_platform.serving.progress import Progress
from dc_platform.serving.view import SCHEMA, View
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

_POLL_MS = 50
_SILVER_SECONDS = 0.1
# How soon a newer version is found of which the log no longer has the first entries.
_REFRESH_SECONDS = 2.0
# Taking one block costs half as much as taking five. Of a topic that flows more is let gather before
# the next poll, three times as long as the last one's records took, so that the tail takes a quarter of
# a core unless it is behind.
_GATHER = 3.0
_GATHER_SECONDS = 0.05
_BEHIND_RECORDS = 1_000
_BEHIND_BYTES = 2**21


class Tail:
    """Follows one topic. `view` is always the newest view; `wait` returns when there is one."""

    def __init__(self, settings: Settings, sources: Sources | None) -> None:
        self._settings = settings
        self._sources = sources
        self._lake = Lake(settings.lake)
        self._lake.ensure(SILVER_EVENTS)
        self._maker = KeyMaker(LakeTable(self._lake, SILVER_EVENTS).id)
        self._pile = Pile(
            settings.data_dir.absolute() / "tail",
            memory_mb=settings.tail_memory_mb,
            disk_mb=settings.tail_disk_mb,
            identity_memory_mb=settings.identity_memory_mb // 2,
        )
        self._index = IdentityIndex(
            self._maker,
            id_column="event_id",
            memory_mb=settings.identity_memory_mb // 2,
            files=IdentityFiles(self._lake, SILVER_EVENTS, self._maker.mark),
            spill_directory=settings.data_dir.absolute() / "tail",
        )
        self._deleted = DeletedIdentities(self._lake, self._maker)
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tail", daemon=True)
        self._snapshot: Snapshot | None = None
        self._border: dict[int, int] = {}
        self._progress = Progress()
        self._positions: dict[int, int] = {}
        self._holding = False
        self._next_silver = self._next_refresh = 0.0
        self._pause = 0.0
        self._arrivals: deque[tuple[float, int]] = deque()
        # Without Kafka the view is silver alone, and not complete.
        self.view: View | None = None
        self.info: TopicInfo | None = None

    def start(self) -> None:
        """Begin to follow; returns at once. `wait` says when the first view is there."""
        self._pile.empty_directory()
        self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Whether there is a view, waiting for it so long."""
        return self._ready.wait(timeout)

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()
        self._thread.join(timeout=10)
        self._pile.close()

    @property
    def events_per_second(self) -> float:
        """Events that arrived in Kafka per second, over the last ten seconds."""
        since = time.monotonic() - 10
        arrived = sum(count for at, count in list(self._arrivals) if at >= since)
        return arrived / 10

    @property
    def kafka_answers(self) -> bool:
        """Whether Kafka answered lately."""
        return self._progress.kafka_answers

    def _run(self) -> None:
        reader: RecordReader | None = None
        while not self._stop.is_set():
            try:
                if reader is None:
                    reader = self._connect()
                self._step(reader)
            except (BrokerUnavailableError, TopicChangedError) as error:
                # More partitions, or another topic: connecting tells which.
                log.warning("%s", error)
                _close(reader)
                reader = None
                self._publish()
                self._stop.wait(0.5)
            except Exception as error:
                # Records may have been read and not taken, or a version of silver half followed.
                if isinstance(error, PlatformError):
                    log.warning("%s; the tail begins anew", error)
                else:
                    log.exception("the tail failed; it begins anew")
                _close(reader)
                reader = None
                self._forget()
                self._stop.wait(1)
        _close(reader)

    def _forget(self) -> None:
        self.info = None
        self._pile.clear()
        self._positions, self._progress = {}, Progress()
        self._index.clear()
        self._holding = self.view is not None
        self._publish()

    # --- following Kafka ---

    def _connect(self) -> RecordReader:
        if self.info is None:
            self._lake.ensure(SILVER_EVENTS)
            self._silver = LakeTable(self._lake, SILVER_EVENTS)
            self._snapshot = self._silver.snapshot()
            self._epoch = epoch_of(self._silver)
        elif self._follow_silver():
            self._publish()
        settings = self._settings
        info = ensure_topic(
            settings.kafka_bootstrap,
            settings.topic,
            partitions=settings.topic_partitions,
            replication=settings.topic_replication,
        )
        if self.info is not None and info.topic_id != self.info.topic_id:
            log.warning("topic %s was created again; the tail begins anew", info.name)
            self._forget()
        if self.info is None:
            self._decoder = decoder_for(settings, info, self._sources)
        self.info = info
        self._border = self._read_border(info)
        reader = reader_for(settings.kafka_bootstrap, info, settings.kafka_client)
        try:
            self._positions = {
                p: max(begin, self._border[p], self._positions.get(p, 0))
                for p, begin in reader.beginning_offsets().items()
            }
            reader.assign(self._positions)
        except BaseException:
            reader.close()
            raise
        return reader

    def _read_border(self, info: TopicInfo) -> dict[int, int]:
        return {p: next_offset(self._silver, info, p) or 0 for p in range(info.partitions)}

    def _step(self, reader: RecordReader) -> None:
        self._progress.ask(reader)
        if self._pile.full:
            self._stop.wait(_POLL_MS / 1000)
            poll = Poll([], {})
        else:
            self._stop.wait(self._pause)
            poll = reader.poll(_POLL_MS)
        changed = bool(poll.records)
        begun = time.monotonic()
        if poll.records:
            self._take(poll)
        self._pause = _pause_after(poll, time.monotonic() - begun)
        changed = self._pile.settle() or changed
        self._positions.update(poll.next_offsets)
        if not poll.records and not self._progress.reached:
            # Positions move without records, too, over the markers of transactions.
            self._positions.update(reader.positions(self._positions))
        self._progress.follow(self._positions)
        # Before silver is looked at, which takes as long as the rows of a commit need to leave.
        if changed or self.view is None or self.view.complete != self._complete():
            self._publish()
        if time.monotonic() >= self._next_silver:
            self._next_silver = time.monotonic() + _SILVER_SECONDS
            if self._follow_silver(reader):
                self._progress.follow(self._positions)
                self._publish()

    def _take(self, poll: Poll) -> None:
        assert self._snapshot is not None
        judged = self._decoder.decode(poll.records)
        now = time.monotonic()
        self._arrivals.append((now, len(judged)))
        while self._arrivals and self._arrivals[0][0] < now - 10:
            self._arrivals.popleft()
        self._progress.read(poll.records)
        if not len(judged):
            return
        rows = mask_rows(judged, is_valid(judged) & ~below(judged, self._border))
        if not len(rows):
            return
        keys = self._maker.keys(rows["source_id"], rows["event_id"])
        found = Ordered.of(keys, scopes_of(rows))
        fresh = found.firsts() & ~self._index.known(found.keys, found.scopes, self._snapshot)
        fresh &= ~self._deleted.known(found.keys, found.scopes)
        fresh = found.mask(fresh & ~self._pile.contains(found.keys))
        if fresh.any():
            table = mask_rows(_silver_columns(rows), fresh).combine_chunks()
            self._pile.add(Chunk.of(table, keys.take(fresh)))

    # --- following silver ---

    def _follow_silver(self, reader: RecordReader | None = None) -> bool:
        assert self.info is not None
        assert self._snapshot is not None
        before, now = self._silver.version, time.monotonic()
        if now < self._next_refresh and not self._silver.may_have_moved:
            return False
        self._next_refresh = now + _REFRESH_SECONDS
        try:
            if self._silver.refresh() == before:
                return False
        except StoreUnavailableError as error:
            # The view stays right with an older version and the longer tail after it.
            log.warning("%s", error)
            return False
        if epoch_of(self._silver) != self._epoch:
            # Identities that this tail knows, and rows that it let go, may be in silver no longer.
            raise FencedError("silver.events was restored to a former state")
        old = set(self._snapshot.paths)
        self._snapshot = self._silver.snapshot()
        self._border = self._read_border(self.info)
        added = self._index.newcomers(self._snapshot, old)
        self._pile.cut(self._border)
        for keys in self._index.read(added):
            self._index.add(keys, of=added)
            self._pile.drop(keys, self._border)
        behind = {p: b for p, b in self._border.items() if self._positions.get(p, 0) < b}
        if behind:
            # Landing is ahead of the tail: go on from where it stands.
            self._positions.update(behind)
            if reader is not None:
                reader.assign(self._positions)
        return True

    # --- publishing ---

    def _complete(self) -> bool:
        return self._progress.holds_all and not self._pile.full

    def _publish(self) -> None:
        if self._snapshot is None:
            return
        if self._holding and not self._complete():
            if self.view is not None and self.view.complete:
                self.view = replace(self.view, complete=False)
            return
        self._holding = False
        self.view = View(
            self._snapshot,
            dict(self._border),
            tuple(self._pile.chunks),
            complete=self._complete(),
            up_to_ms=self._progress.up_to_ms,
        )
        self._ready.set()


def _pause_after(poll: Poll, seconds: float) -> float:
    """How long to wait for the next records after these, which took `seconds`."""
    records = Records.of(poll.records)
    if len(records) >= _BEHIND_RECORDS or records.sizes.sum() >= _BEHIND_BYTES:
        return 0.0
    return min(_GATHER * seconds, _GATHER_SECONDS) if len(records) else 0.0


def _close(reader: RecordReader | None) -> None:
    if reader is not None:
        reader.close()


def _silver_columns(rows: pa.Table) -> pa.Table:
    names = [name for name in SCHEMA.names if name in rows.column_names]
    return rows.select(names)
