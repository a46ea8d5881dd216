"""A quarantined row under today's rules: which events are in its bytes, and which of them pass.

The judge is the gateway's own, and "in the future" is measured against the first receipt, so what a
clock did then stays as it was. What may have changed since: the limits, the registered sources and
their schemas, what retention has deleted, and the bytes themselves, by a patch. Bytes that were a
whole body, or a whole record, are opened.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

from dc_platform.contracts import identity
from dc_platform.contracts.envelope import Envelope, Rejected, judge_event
from dc_platform.contracts.envelope import Passed as Judged
from dc_platform.contracts.floors import NO_FLOORS, KnownFloors, too_old
from dc_platform.contracts.lines import canonical_line
from dc_platform.contracts.merge_patch import Patch, merge
from dc_platform.contracts.reasons import Reason
from dc_platform.contracts.requests import events_of
from dc_platform.decode.columns import KnownSources

# Reasons of strangers' records that could not be read at all: their bytes may hold several events.
_OF_RECORDS = frozenset({Reason.UNSUPPORTED_CONTENT_TYPE, Reason.UNDECODABLE_BLOCK})


class Quarantined(NamedTuple):
    """A row of silver.quarantine, as far as a verdict depends on it. `done`: positions of events in
    it that need no replay any more.
    """

    quarantine_id: str
    tenant_id: str
    source_id: str | None
    reason: str
    message: str
    raw: bytes
    raw_length: int
    raw_sha256: str
    request_hash: str
    received_at: datetime
    done: list[int]

    @property
    def received_ms(self) -> int:
        """When it was first received, in epoch milliseconds."""
        return round(self.received_at.timestamp() * 1000)

    @property
    def is_whole(self) -> bool:
        """Whether its bytes are a body or a record of their own, not an event of one."""
        named = f"{self.source_id}:{self.raw_sha256}".encode()
        return self.reason in _OF_RECORDS or hashlib.sha256(named).hexdigest() == self.request_hash


class Today:
    """What is asked of events now: of their sources, by the schemas of these, and by retention."""

    def __init__(
        self,
        sources: KnownSources,
        floors: KnownFloors = NO_FLOORS,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._sources = sources
        self._floors = floors
        self._clock = clock

    def tenant_of(self, source_id: str) -> str | None:
        """Tenant of a source that may send now; None when it may not."""
        return self._sources.tenant_of(source_id, self._clock())

    def judge(self, event: Envelope, tenant_id: str, source_id: str) -> Judged | Rejected | None:
        """What schemas and floors say of an event; None where nothing is asked."""
        at_ms = self._clock()
        old = too_old(event, self._floors, tenant_id=tenant_id, at_ms=at_ms)
        if old is not None:
            return old
        rules = self._sources.rules_of(source_id, at_ms)
        return rules and rules.judge(event.eventType, bytes(event.payload))


class Passed(NamedTuple):
    """An event that passes now, as the gateway would write it."""

    row: Quarantined
    position: int
    tenant_id: str
    source_id: str
    event_id: str
    line: bytes


class Failed(NamedTuple):
    """An event, or a row, that does not."""

    row: Quarantined
    position: int
    why: Rejected


class Rejudge:
    """Judges rows of quarantine again."""

    def __init__(
        self,
        today: Today,
        *,
        future_limit_ms: int,
        max_event_bytes: int,
        patch: Patch | None = None,
    ) -> None:
        self._today = today
        self._future_limit_ms = future_limit_ms
        self._max_event_bytes = max_event_bytes
        self._patch = patch

    def events(self, row: Quarantined) -> Iterator[Passed | Failed]:
        """The verdict on each event of the row that is not done."""
        if len(row.raw) < row.raw_length:
            kept = f"of {row.raw_length} bytes only {len(row.raw)} were kept"
            yield Failed(row, 0, Rejected(Reason(row.reason), f"{kept}, so it cannot be replayed"))
            return
        found = events_of(row.raw, "") if row.is_whole else [row.raw]
        if isinstance(found, Rejected):
            # What it says of the bytes may be beside the point: they may be compressed.
            yield Failed(row, 0, Rejected(Reason(row.reason), row.message))
            return
        for index, raw in enumerate(found):
            if index not in row.done:
                yield self._event(row, index, raw)

    def _event(self, row: Quarantined, index: int, raw: bytes) -> Passed | Failed:
        repaired = raw if self._patch is None else merge(raw, self._patch)
        event = self._verdict(row, repaired)
        if isinstance(event, Rejected):
            return Failed(row, index, event)
        whose = self._owner(row, event)
        if isinstance(whose, Rejected):
            return Failed(row, index, whose)
        tenant_id, source_id = whose
        judged = self._today.judge(event, tenant_id, source_id)
        if isinstance(judged, Rejected):
            return Failed(row, index, judged)
        event_id, client_event_id = self._identify(row, index, event, source_id)
        line = canonical_line(
            event,
            repaired,
            source_id=source_id,
            event_id=event_id,
            client_event_id=client_event_id,
            received_at_ms=row.received_ms,
            judged=judged,
        )
        return Passed(row, index, tenant_id, source_id, event_id, line)

    def _verdict(self, row: Quarantined, raw: bytes) -> Envelope | Rejected:
        """What the gateway's judge says of the event alone."""
        return judge_event(
            raw,
            reference_ms=row.received_ms,
            future_limit_ms=self._future_limit_ms,
            max_bytes=self._max_event_bytes,
        )

    def _owner(self, row: Quarantined, event: Envelope) -> tuple[str, str] | Rejected:
        """(tenant, source): the source that sent it, or that a stranger's record names."""
        named = event.sourceId and (identity.canonical_uuid(event.sourceId) or event.sourceId)
        if row.source_id is not None and named not in (None, row.source_id):
            return Rejected(
                Reason.SOURCE_MISMATCH, f"sourceId {named} is not the source that sent the event"
            )
        source_id = row.source_id or named
        if source_id is None:
            return Rejected(Reason.MISSING_FIELD, "Object missing required field `sourceId`")
        tenant_id = self._today.tenant_of(source_id)
        if tenant_id is None:
            return Rejected(Reason.UNKNOWN_SOURCE, f"source {source_id} is not registered")
        return tenant_id, source_id

    @staticmethod
    def _identify(
        row: Quarantined, index: int, event: Envelope, source_id: str
    ) -> tuple[str, str | None]:
        """The client's id; without one always the same for the same quarantined bytes."""
        if event.eventId is not None:
            return identity.event_id_from_text(source_id, event.eventId)
        return str(uuid.uuid5(uuid.UUID(row.quarantine_id), str(index))), None
