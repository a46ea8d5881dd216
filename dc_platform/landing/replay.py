"""Quarantined events of a day once more: judged by today's rules, repaired, and through Kafka again.

A piece of rows at a time: judge, leave out what silver has, send, put it on record in `ops.replays`.
What landing then does is what it does with any event, so a replay may be killed anywhere: what was sent
and not put on record is sent again under the same identity, and kept out. What is on record is not sent
again. The rows stay in quarantine, and in the ledger as rejected.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from dc_platform.contracts.merge_patch import Patch
from dc_platform.decode.columns import AnySource
from dc_platform.lake.replays import (
    KNOWN,
    REJECTED,
    REPLAYED,
    Selection,
    in_silver,
    open_rows,
    record_replays,
)
from dc_platform.lake.store import Lake
from dc_platform.landing.replay_blocks import BlockSender, Sent
from dc_platform.landing.replay_judge import (
    Failed,
    Passed,
    Quarantined,
    Rejudge,
    Today,
)
from dc_platform.points import Point, Reached, unarmed
from dc_platform.registry.retention import FloorHistory, Retention
from dc_platform.registry.sources import SourceHistory, Sources
from dc_platform.settings import Settings

log = logging.getLogger(__name__)

_COLUMNS = [name for name in Quarantined._fields if name != "done"]
_EXAMPLES = 5


@dataclass
class Replayed:
    """What a replay did, or would do. `still` counts events that do not pass, by (reason now).
    `examples` are some of them.
    """

    rows: int = 0
    replayed: int = 0
    known: int = 0
    still: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def rejected(self) -> int:
        """Events that still do not pass."""
        return self.still.total()

    def add(self, other: Replayed) -> None:
        """Sum it up."""
        self.rows += other.rows
        self.replayed += other.replayed
        self.known += other.known
        self.still += other.still
        self.examples = (self.examples + other.examples)[:_EXAMPLES]


@dataclass(frozen=True)
class Replay:
    """Which rows are replayed, and how. `run` names it in `ops.replays`."""

    run: str
    selection: Selection = field(default_factory=Selection)
    patch: Patch | None = None
    dry_run: bool = False


def today(sources: Sources | None, *, accept_unknown: bool = False) -> Today:
    """What is asked of events now; without `sources` each may send anything. With `accept_unknown`
    sources that nobody registered may send, too.
    """
    if sources is None:
        return Today(AnySource())
    history = SourceHistory(sources)
    known = AnySource(history) if accept_unknown else history
    return Today(known, FloorHistory(Retention(sources.database)))


def replay_day(
    settings: Settings,
    lake: Lake,
    day: date,
    replay: Replay,
    *,
    now: Today,
    reached: Reached = unarmed,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Replayed:
    """Replay what is open of an ingest date; raises BrokerUnavailableError, CommitConflictError.

    Called again after an error, or beside another replay of the same day, it doubles nothing.
    """
    judge = Rejudge(
        now,
        future_limit_ms=settings.future_limit_ms,
        max_event_bytes=settings.max_event_bytes,
        patch=replay.patch,
    )
    sender = BlockSender(settings, reached=reached)
    done = Replayed()
    try:
        with open_rows(lake, day, replay.selection) as rows:
            for piece in rows.pieces():
                judged = _Judged.of(lake, judge, piece)
                done.add(judged.sum())
                if replay.dry_run:
                    continue
                reached(Point.REPLAY_JUDGED)
                sent = sender.send(judged.fresh) if judged.fresh else []
                record_replays(lake, list(judged.records(sent, replay.run, clock())), day)
                reached(Point.REPLAY_RECORDED)
    finally:
        sender.close()
    return done


@dataclass(frozen=True)
class _Judged:
    """What a piece of rows came to."""

    rows: int
    fresh: list[Passed]
    known: list[Passed]
    failed: list[Failed]

    @classmethod
    def of(cls, lake: Lake, judge: Rejudge, piece: pa.Table) -> _Judged:
        names = [*_COLUMNS, "done"]
        rows = [Quarantined(**row) for row in piece.select(names).to_pylist()]
        verdicts = [verdict for row in rows for verdict in judge.events(row)]
        passed = [verdict for verdict in verdicts if isinstance(verdict, Passed)]
        failed = [verdict for verdict in verdicts if isinstance(verdict, Failed)]
        have = in_silver(lake, [(event.source_id, event.event_id) for event in passed])
        fresh: list[Passed] = []
        known: list[Passed] = []
        for event in passed:
            # A client that sent it in two requests is quarantined twice.
            name = event.source_id, event.event_id
            (known if name in have else fresh).append(event)
            have.add(name)
        return cls(len(rows), fresh, known, failed)

    def sum(self) -> Replayed:
        """In figures."""
        examples = [
            {
                "quarantineId": failed.row.quarantine_id,
                "reason": failed.why.reason.value,
                "message": failed.why.message,
            }
            for failed in self.failed[:_EXAMPLES]
        ]
        still = Counter(failed.why.reason.value for failed in self.failed)
        return Replayed(self.rows, len(self.fresh), len(self.known), still, examples)

    def records(self, sent: Sequence[Sent], run: str, at: datetime) -> Iterator[dict[str, Any]]:
        """Rows of `ops.replays`."""
        about = {"run": run, "replayed_at": at}
        for one in sent:
            for index, event in enumerate(one.block.events):
                yield about | _of_passed(event, REPLAYED) | _address(one, index)
        for event in self.known:
            yield about | _of_passed(event, KNOWN)
        for failed in self.failed:
            row = failed.row
            yield about | {
                "tenant_id": row.tenant_id,
                "source_id": row.source_id,
                "quarantine_id": row.quarantine_id,
                "event_index": failed.position,
                "reason": row.reason,
                "result": REJECTED,
                "reason_now": failed.why.reason.value,
                "message": failed.why.message,
            }


def _of_passed(event: Passed, result: str) -> dict[str, Any]:
    return {
        "tenant_id": event.tenant_id,
        "source_id": event.source_id,
        "quarantine_id": event.row.quarantine_id,
        "event_index": event.position,
        "event_id": event.event_id,
        "reason": event.row.reason,
        "result": result,
    }


def _address(sent: Sent, index: int) -> dict[str, Any]:
    return {
        "block_id": str(sent.block.id),
        "topic_id": sent.topic_id,
        "kafka_partition": sent.at.partition,
        "kafka_offset": sent.at.offset,
        "kafka_index": index,
    }
