"""Data sources (design 3.1) and their keys."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import select, update

from dc_platform.contracts import identity
from dc_platform.registry.bindings import bind_in, bound_schemas, current_bindings
from dc_platform.registry.database import Database, now_ms
from dc_platform.registry.keys import KEY_PREFIX, hash_secret, new_secret
from dc_platform.registry.models import KeyRow, SourceFailureRow, SourceRow
from dc_platform.registry.rules import Checkers, RuleHistory, read_rules
from dc_platform.registry.sampling import SamplingRule
from dc_platform.registry.schema_rows import SETTLE_MS

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dc_platform.contracts.schema_check import Rules


class SourceType(StrEnum):
    """Kinds of source (design 3.1)."""

    IOT_DEVICE = "IOT_DEVICE"
    SERVER = "SERVER"
    APPLICATION = "APPLICATION"
    MOBILE_APP = "MOBILE_APP"


class SourceStatus(StrEnum):
    """INACTIVE: disabled or deleted. ERROR: a rule of its schema failed it, or most of what it last
    sent was rejected.
    """

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    ERROR = "ERROR"


class Source(NamedTuple):
    """A DataSource as the API shows it. `ingestion_rate` is in events per second; `schemas` are those
    that judge it, the one for all event types first; `failure` says why a rule failed it.
    """

    source_id: str
    tenant_id: str
    name: str
    type: SourceType
    metadata: dict[str, Any]
    schemas: list[dict[str, Any]]
    failure: str | None
    sampling: SamplingRule | None
    ingestion_rate: float
    status: SourceStatus
    last_seen_ms: int | None
    created_ms: int


class KeyOwner(NamedTuple):
    """Whose key it is."""

    source_id: str
    tenant_id: str
    enabled: bool


class Activity(NamedTuple):
    """What a gateway saw of one source since its last report."""

    last_seen_ms: int
    rate: float
    rejecting: bool


class Sources:
    """Reads and writes sources. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def database(self) -> Database:
        """The registry that they are in."""
        return self._database

    def create(
        self,
        name: str,
        type_: SourceType,
        *,
        tenant_id: str = "default",
        metadata: Mapping[str, Any] | None = None,
        schema: Mapping[str, Any] | None = None,
        sampling: SamplingRule | None = None,
        by: str = "",
    ) -> tuple[Source, str]:
        """A new source and its key, which is shown only now; `schema` as `bindings.bind_in` has it.

        Raises SchemaError and SchemaConflictError.
        """
        secret = new_secret(KEY_PREFIX)
        row = SourceRow(
            source_id=str(uuid.uuid4()),
            tenant_id=tenant_id,
            name=name,
            type=type_.value,
            details=dict(metadata or {}),
            sampling=sampling.stored() if sampling is not None else None,
            created_ms=now_ms(),
        )
        key = KeyRow(
            key_hash=secret.hash,
            source_id=row.source_id,
            hint=secret.hint,
            created_ms=row.created_ms,
        )
        with self._database.change() as session:
            session.add_all([row, key])
            session.flush()
            if schema is not None:
                # None of its events came before.
                bind_in(session, row, schema, by=by, from_ms=row.created_ms)
                session.flush()
            return _sources(session, [row])[0], secret.text

    def get(self, source_id: str) -> Source | None:
        """A source that is not deleted."""
        with self._database.reading() as session:
            row = session.get(SourceRow, identity.canonical_uuid(source_id) or source_id)
            return _sources(session, [row])[0] if row and row.deleted_ms is None else None

    def list(self) -> list[Source]:
        """All sources that are not deleted, oldest first."""
        query = select(SourceRow).where(SourceRow.deleted_ms.is_(None))
        with self._database.reading() as session:
            rows = session.scalars(query.order_by(SourceRow.created_ms, SourceRow.source_id))
            return _sources(session, list(rows))

    def change(
        self,
        source_id: str,
        *,
        name: str | None = None,
        type_: SourceType | None = None,
        metadata: Mapping[str, Any] | None = None,
        schema: Mapping[str, Any] | None = None,
        sampling: SamplingRule | None = None,
        enabled: bool | None = None,
        by: str = "",
    ) -> Source | None:
        """Change what is given; None when there is no such source. Who is enabled has not failed any
        more. Raises SchemaError and SchemaConflictError.
        """
        with self._database.change() as session:
            row = session.get(SourceRow, identity.canonical_uuid(source_id) or source_id)
            if row is None or row.deleted_ms is not None:
                return None
            row.name = name if name is not None else row.name
            row.type = type_.value if type_ is not None else row.type
            row.details = dict(metadata) if metadata is not None else row.details
            row.sampling = sampling.stored() if sampling is not None else row.sampling
            row.enabled = enabled if enabled is not None else row.enabled
            if schema is not None:
                bind_in(session, row, schema, by=by)
            if enabled:
                session.execute(
                    update(SourceFailureRow)
                    .where(_whose(row.source_id), SourceFailureRow.until_ms.is_(None))
                    .values(until_ms=now_ms() + SETTLE_MS)
                )
            session.flush()
            return _sources(session, [row])[0]

    def fail(self, source_id: str, message: str, *, at_ms: int) -> bool:
        """Fail a source for an event that it sent at a time. False when it has failed already, or
        somebody has enabled it since.
        """
        known = select(SourceFailureRow.number).where(
            _whose(source_id),
            SourceFailureRow.until_ms.is_(None) | (SourceFailureRow.from_ms >= at_ms),
        )
        # Most reports are repeated ones, and a change makes every gateway read all rules again.
        with self._database.reading() as session:
            if session.scalars(known).first() is not None:
                return False
        with self._database.change() as session:
            if session.scalars(known).first() is not None:
                return False
            from_ms = max(now_ms(), at_ms) + SETTLE_MS
            failure = SourceFailureRow(source_id=source_id, from_ms=from_ms, message=message[:1024])
            session.add(failure)
            return True

    def delete(self, source_id: str) -> bool:
        """Delete a source: its keys die, its events stay. False when there is no such source."""
        with self._database.change() as session:
            row = session.get(SourceRow, identity.canonical_uuid(source_id) or source_id)
            if row is None or row.deleted_ms is not None:
                return False
            at = now_ms()
            row.deleted_ms = at + SETTLE_MS
            session.execute(
                update(KeyRow)
                .where(KeyRow.source_id == row.source_id, KeyRow.revoked_ms.is_(None))
                .values(revoked_ms=at)
            )
            return True

    def report(self, seen: Mapping[str, Activity]) -> None:
        """Store what a gateway saw of its sources."""
        with self._database.session() as session:
            for source_id, activity in seen.items():
                session.execute(
                    update(SourceRow)
                    .where(SourceRow.source_id == source_id)
                    .values(
                        last_seen_ms=activity.last_seen_ms,
                        ingestion_rate=activity.rate,
                        rejecting=activity.rejecting,
                    )
                )

    def version(self) -> int:
        """Grows with every change of a source or a key."""
        return self._database.version()

    def keys(self) -> dict[str, KeyOwner]:
        """Hash of every living key → its owner."""
        query = (
            select(KeyRow.key_hash, SourceRow.source_id, SourceRow.tenant_id, SourceRow.enabled)
            .join(SourceRow, SourceRow.source_id == KeyRow.source_id)
            .where(KeyRow.revoked_ms.is_(None), SourceRow.deleted_ms.is_(None))
        )
        with self._database.reading() as session:
            return {
                key: KeyOwner(source_id, tenant_id, enabled)
                for key, source_id, tenant_id, enabled in session.execute(query)
            }

    def sampling(self) -> dict[str, SamplingRule]:
        """Source → its rule, of sources that have one."""
        query = select(SourceRow.source_id, SourceRow.sampling).where(
            SourceRow.deleted_ms.is_(None)
        )
        with self._database.reading() as session:
            return {
                row[0]: SamplingRule.model_validate(row[1])
                for row in session.execute(query)
                if row[1] is not None
            }

    def owner_of(self, key: str) -> KeyOwner | None:
        """The owner of one key, asked of the database."""
        query = (
            select(SourceRow.source_id, SourceRow.tenant_id, SourceRow.enabled)
            .join(KeyRow, SourceRow.source_id == KeyRow.source_id)
            .where(
                KeyRow.key_hash == hash_secret(key),
                KeyRow.revoked_ms.is_(None),
                SourceRow.deleted_ms.is_(None),
            )
        )
        with self._database.reading() as session:
            row = session.execute(query).first()
            return KeyOwner(*row) if row else None

    def rules(self, checkers: Checkers) -> RuleHistory:
        """What is asked of the events of every source, now and ever."""
        with self._database.reading() as session:
            return read_rules(session, checkers)

    def history(self) -> dict[str, tuple[str, int, int | None]]:
        """source_id → (tenant, created, deleted) of every source that ever was."""
        query = select(
            SourceRow.source_id, SourceRow.tenant_id, SourceRow.created_ms, SourceRow.deleted_ms
        )
        with self._database.reading() as session:
            return {row[0]: (row[1], row[2], row[3]) for row in session.execute(query)}


class SourceHistory:
    """`KnownSources` of the decoder, from the registry.

    A record is judged by the history at its own time (the broker's append time), so the verdict on
    it never changes. The history that is in memory answers for times before it was read; a later
    record makes it read again, once for all records that Kafka already has.
    """

    # With a broker's clock ahead of ours every record is later than the last reading: then a known
    # source is taken from memory for so long, while an unknown one is still looked up at once.
    _SKEW_SECONDS = 0.2

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._known: dict[str, tuple[str, int, int | None]] = {}
        self._checkers = Checkers()
        self._rules = RuleHistory(self._checkers, {}, {}, {})
        self._version = -1
        self._read_ms = -1
        self._read_at = 0.0

    def tenant_of(self, source_id: str, at_ms: int) -> str | None:
        """The tenant of a source that was registered at `at_ms`, else None."""
        self._be_past(source_id, at_ms)
        found = self._known.get(source_id)
        if found is None:
            return None
        tenant, created, deleted = found
        return tenant if created <= at_ms and (deleted is None or at_ms < deleted) else None

    def rules_of(self, source_id: str, at_ms: int) -> Rules | None:
        """What was asked of the source's events at `at_ms`; None where nothing was."""
        self._be_past(source_id, at_ms)
        return self._rules.at(source_id, at_ms)

    def _be_past(self, source_id: str, at_ms: int) -> None:
        """Have a reading that was made after a time."""
        if at_ms >= self._read_ms:
            recent = time.monotonic() - self._read_at < self._SKEW_SECONDS
            if not (recent and source_id in self._known):
                self._read()

    def _read(self) -> None:
        self._read_ms, self._read_at = now_ms(), time.monotonic()
        # Before the rest: what changes while it is read is read again.
        version = self._sources.version()
        if version != self._version:
            self._known = self._sources.history()
            self._rules = self._sources.rules(self._checkers)
            self._version = version


def _whose(source_id: str) -> Any:
    return SourceFailureRow.source_id == source_id


def _sources(session: Session, rows: Sequence[SourceRow]) -> list[Source]:
    ids = [row.source_id for row in rows]
    bindings = current_bindings(session, ids)
    schemas = bound_schemas(session, bindings)
    query = select(SourceFailureRow).where(SourceFailureRow.until_ms.is_(None))
    failures = {failed.source_id: failed.message for failed in session.scalars(query)}
    bound: dict[str, list[dict[str, Any]]] = {}
    for binding in sorted(bindings, key=lambda b: b.event_type):
        if binding.schema_id is not None:
            shown = schemas[binding.schema_id].as_json()
            bound.setdefault(binding.source_id, []).append(shown)
    return [_source(row, bound.get(row.source_id, []), failures.get(row.source_id)) for row in rows]


def _source(row: SourceRow, schemas: list[dict[str, Any]], failure: str | None) -> Source:
    status = SourceStatus.ACTIVE
    if not row.enabled or row.deleted_ms is not None:
        status = SourceStatus.INACTIVE
    elif row.rejecting or failure is not None:
        status = SourceStatus.ERROR
    return Source(
        source_id=row.source_id,
        tenant_id=row.tenant_id,
        name=row.name,
        type=SourceType(row.type),
        metadata=row.details,
        schemas=schemas,
        failure=failure,
        sampling=None if row.sampling is None else SamplingRule.model_validate(row.sampling),
        ingestion_rate=row.ingestion_rate,
        status=status,
        last_seen_ms=row.last_seen_ms,
        created_ms=row.created_ms,
    )
