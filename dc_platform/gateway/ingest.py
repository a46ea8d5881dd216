"""The protocol-free way in: judge every event, give ids, send blocks, then answer.

The answer says `accepted` only of events that Kafka has (`acks=all`), and `rejected` only of events
whose bytes Kafka has too, with their reason: nothing that an authenticated source sent is dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from dc_platform.contracts import identity
from dc_platform.contracts.envelope import Envelope, Rejected, judge_event
from dc_platform.contracts.floors import NO_FLOORS, Floors, too_old
from dc_platform.contracts.lines import canonical_line
from dc_platform.contracts.reasons import REMEDIES, Reason
from dc_platform.contracts.rejects import Reject, encode_rejects, kept
from dc_platform.contracts.schema_check import Rules
from dc_platform.errors import BrokerUnavailableError
from dc_platform.gateway.activity import ActivityLog
from dc_platform.gateway.batcher import BLOCK_BYTES, Batcher
from dc_platform.gateway.pressure import Circuit, EventQueue
from dc_platform.gateway.rules import RuleBook
from dc_platform.points import Point, Reached, unarmed
from dc_platform.registry.sources import KeyOwner


def clock_ms() -> int:
    """The time, in epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class IngestLimits:
    """What a verdict at the gateway depends on, and how long an answer may take."""

    future_limit_ms: int
    max_event_bytes: int
    ack_timeout_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    accepted: int
    rejects: Sequence[Reject]

    @property
    def errors(self) -> list[dict[str, object]]:
        """One entry per rejected event, as the API shows it."""
        return [
            {
                "index": reject.position,
                "code": reject.reason.value,
                "message": f"{reject.message}. {REMEDIES[reject.reason]}",
            }
            for reject in self.rejects
        ]


class Ingest:
    """Takes events of authenticated sources. All protocols end here."""

    def __init__(
        self,
        batcher: Batcher,
        queue: EventQueue,
        circuit: Circuit,
        activity: ActivityLog,
        limits: IngestLimits,
        *,
        rules: RuleBook | None = None,
        clock: Callable[[], int] = clock_ms,
        reached: Reached = unarmed,
        floors: Callable[[], Floors] = lambda: NO_FLOORS,
    ) -> None:
        self._floors = floors
        self._rules = rules
        self._batcher = batcher
        self._queue = queue
        self._circuit = circuit
        self._activity = activity
        self._limits = limits
        self._clock = clock
        self._reached = reached

    async def events(
        self,
        owner: KeyOwner,
        events: Sequence[bytes],
        *,
        request_sha256: str,
        idempotency_key: str | None = None,
        batch_id: str | None = None,
    ) -> Outcome:
        """Accept and reject the events of one request; raises BrokerUnavailableError."""
        received_ms = self._clock()
        lines: list[bytes] = []
        rejects: list[Reject] = []
        # One version for the whole request.
        rules = None if self._rules is None else self._rules.of(owner.source_id)
        for index, raw in enumerate(events):
            line = self._line(owner, raw, index, received_ms, idempotency_key, rules)
            if isinstance(line, Rejected):
                rejects.append(Reject.of(index, line.reason, line.message, raw, line.judged_by))
            else:
                lines.append(line)
        self._fail(owner, rejects, received_ms)
        await self._send(owner, lines, rejects, request_sha256, received_ms, batch_id)
        return Outcome(len(lines), rejects)

    async def reject_body(
        self,
        owner: KeyOwner,
        verdict: Rejected,
        raw: bytes,
        length: int,
        sha256: str,
        *,
        batch_id: str | None = None,
    ) -> Outcome:
        """Keep a body that holds no events at all, as one rejected event."""
        reject = Reject(0, verdict.reason, verdict.message, kept(raw), length, sha256)
        await self._send(owner, [], [reject], sha256, self._clock(), batch_id)
        return Outcome(0, [reject])

    def _line(
        self,
        owner: KeyOwner,
        raw: bytes,
        index: int,
        received_ms: int,
        idempotency_key: str | None,
        rules: Rules | None,
    ) -> bytes | Rejected:
        event = judge_event(
            raw,
            reference_ms=received_ms,
            future_limit_ms=self._limits.future_limit_ms,
            max_bytes=self._limits.max_event_bytes,
        )
        if isinstance(event, Rejected):
            return event
        if event.sourceId is not None:
            named = identity.canonical_uuid(event.sourceId) or event.sourceId
            if named != owner.source_id:
                return Rejected(
                    Reason.SOURCE_MISMATCH, f"sourceId {named} is not the source of the key"
                )
        old = too_old(event, self._floors(), tenant_id=owner.tenant_id, at_ms=received_ms)
        if old is not None:
            return old
        judged = rules and rules.judge(event.eventType, bytes(event.payload))
        if isinstance(judged, Rejected):
            return judged
        event_id, client_event_id = self._identify(owner, event, index, idempotency_key)
        return canonical_line(
            event,
            raw,
            source_id=owner.source_id,
            event_id=event_id,
            client_event_id=client_event_id,
            received_at_ms=received_ms,
            judged=judged,
        )

    def _fail(self, owner: KeyOwner, rejects: Sequence[Reject], received_ms: int) -> None:
        """Fail the source when a rule says so: for what comes after this request."""
        for reject in rejects:
            if reject.reason is Reason.FAILED_BY_RULE and self._rules is not None:
                self._rules.fail(owner.source_id, reject.message, at_ms=received_ms)
                return

    @staticmethod
    def _identify(
        owner: KeyOwner, event: Envelope, index: int, idempotency_key: str | None
    ) -> tuple[str, str | None]:
        if event.eventId is not None:
            return identity.event_id_from_text(owner.source_id, event.eventId)
        if idempotency_key is not None:
            return identity.event_id_from_key(owner.source_id, idempotency_key, index), None
        return str(uuid.uuid4()), None

    async def _send(
        self,
        owner: KeyOwner,
        lines: Sequence[bytes],
        rejects: Sequence[Reject],
        request_sha256: str,
        received_ms: int,
        batch_id: str | None,
    ) -> None:
        if not lines and not rejects:
            return
        request_hash = hashlib.sha256(f"{owner.source_id}:{request_sha256}".encode()).hexdigest()
        blocks = [
            (
                encode_rejects(
                    part,
                    source_id=owner.source_id,
                    request_hash=request_hash,
                    received_at_ms=received_ms,
                ),
                len(part),
                part[0].judged_by,
            )
            for part in _parts(rejects)
        ]
        whose = owner.tenant_id, owner.source_id
        async with self._queue.admit(len(lines) + len(rejects)):
            with self._circuit.calling():
                about: _About = {"received_ms": received_ms, "batch_id": batch_id}
                sends = [self._batcher.add(*whose, lines, **about)] if lines else []
                sends += [
                    self._batcher.add_rejects(*whose, value, count, judged_by=judged_by, **about)
                    for value, count, judged_by in blocks
                ]
                try:
                    async with asyncio.timeout(self._limits.ack_timeout_seconds):
                        await asyncio.gather(*sends)
                except TimeoutError:
                    raise BrokerUnavailableError(
                        "Kafka did not acknowledge in time; the events may still arrive, and"
                        " sending them again with the same ids is safe"
                    ) from None
        self._reached(Point.BEFORE_ANSWER)
        self._activity.saw(owner.source_id, accepted=len(lines), rejected=len(rejects))


class _About(TypedDict):
    """What all blocks of a request have in common."""

    received_ms: int
    batch_id: str | None


def _parts(rejects: Sequence[Reject]) -> list[list[Reject]]:
    """Rejects in blocks of at most 1,000 rows and about 1 MiB, each of one version of a schema."""
    parts: list[list[Reject]] = []
    size = 0
    for reject in sorted(rejects, key=lambda reject: reject.judged_by or ""):
        if (
            not parts
            or len(parts[-1]) >= 1000
            or size + len(reject.raw) > BLOCK_BYTES
            or parts[-1][0].judged_by != reject.judged_by
        ):
            parts.append([])
            size = 0
        parts[-1].append(reject)
        size += len(reject.raw)
    return parts
