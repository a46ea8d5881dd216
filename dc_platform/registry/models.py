"""The registry's tables. Times are UTC epoch milliseconds: one form on every database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, Index, Integer, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of all tables."""


class SourceRow(Base):
    """A DataSource (design 3.1). Deleting sets `deleted_ms`: the history is append-only."""

    __tablename__ = "sources"

    source_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64), default="default")
    name: Mapped[str] = mapped_column(String(256))
    type: Mapped[str] = mapped_column(String(32))
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON, default=dict)
    sampling: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    enabled: Mapped[bool] = mapped_column(default=True)
    last_seen_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    ingestion_rate: Mapped[float] = mapped_column(Float, default=0.0)
    rejecting: Mapped[bool] = mapped_column(default=False)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    deleted_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)


class SchemaRow(Base):
    """A schema: what its versions have in common. Deleting sets `deleted_ms`."""

    __tablename__ = "schemas"

    schema_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(256))
    # Empty: all types.
    event_type: Mapped[str] = mapped_column(String(256), default="")
    compatibility: Mapped[str] = mapped_column(String(16))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    deleted_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)

    __table_args__ = (Index("schemas_name", "tenant_id", "name"),)


class SchemaVersionRow(Base):
    """A version of a schema, in force for strangers' records from `from_ms` on. Never changed."""

    __tablename__ = "schema_versions"

    schema_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)
    from_ms: Mapped[int] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[str] = mapped_column(String(128))


class SchemaBindingRow(Base):
    """From `from_ms` on a schema (null: none) judges a source's events of a type. Never changed."""

    __tablename__ = "schema_bindings"

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    source_id: Mapped[str] = mapped_column(String(36))
    event_type: Mapped[str] = mapped_column(String(256))
    schema_id: Mapped[str | None] = mapped_column(String(36))
    from_ms: Mapped[int] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    created_by: Mapped[str] = mapped_column(String(128))

    __table_args__ = (Index("schema_bindings_source", "source_id"),)


class EnrichmentRow(Base):
    """A field of a schema whose values are keys of a reference table."""

    __tablename__ = "enrichments"

    schema_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    field: Mapped[str] = mapped_column(String(512), primary_key=True)
    reference: Mapped[str] = mapped_column(String(64))


class SourceFailureRow(Base):
    """A source that a rule failed, from `from_ms` until somebody enabled it."""

    __tablename__ = "source_failures"

    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    source_id: Mapped[str] = mapped_column(String(36))
    from_ms: Mapped[int] = mapped_column(BigInteger)
    until_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    message: Mapped[str] = mapped_column(String(1024))

    __table_args__ = (Index("source_failures_source", "source_id"),)


class KeyRow(Base):
    """An API key of a source: only its hash is stored."""

    __tablename__ = "api_keys"

    key_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    source_id: Mapped[str] = mapped_column(String(36))
    hint: Mapped[str] = mapped_column(String(32))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)

    __table_args__ = (Index("api_keys_source", "source_id"),)


class TokenRow(Base):
    """A bearer token for people and tools: only its hash is stored."""

    __tablename__ = "tokens"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    scope: Mapped[str] = mapped_column(String(16))
    tenant_id: Mapped[str] = mapped_column(String(64), default="default")
    hint: Mapped[str] = mapped_column(String(32))
    created_ms: Mapped[int] = mapped_column(BigInteger)
    revoked_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)


class MetricRow(Base):
    """A metric (design 3.5). `version` is that of its definition; deleting sets `deleted_ms`."""

    __tablename__ = "metrics"

    metric_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64), default="default")
    name: Mapped[str] = mapped_column(String(128))
    version: Mapped[int] = mapped_column(Integer)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    deleted_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)

    __table_args__ = (Index("metrics_name", "tenant_id", "name"),)


class MetricVersionRow(Base):
    """What a metric was from one change on: append-only. `definition` is null for its deletion,
    `changed_at` the registry's version with the change.
    """

    __tablename__ = "metric_versions"

    metric_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    definition: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True), default=None)
    changed_at: Mapped[int] = mapped_column(BigInteger)
    created_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("metric_versions_changed", "changed_at"),)


class ReportRow(Base):
    """A saved report (`contracts.reports.Report`). Deleting it deletes the row."""

    __tablename__ = "reports"

    tenant_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    definition: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    changed_ms: Mapped[int] = mapped_column(BigInteger)
    changed_by: Mapped[str] = mapped_column(String(128))


class LeaseRow(Base):
    """Who owns a landing slot. `epoch` grows with every owner."""

    __tablename__ = "leases"

    slot: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str | None] = mapped_column(String(64), default=None)
    epoch: Mapped[int] = mapped_column(Integer, default=0)
    host: Mapped[str | None] = mapped_column(String(256), default=None)
    pid: Mapped[int | None] = mapped_column(Integer, default=None)
    process_started: Mapped[float | None] = mapped_column(Float, default=None)
    acquired_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    renewed_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    wanted_by: Mapped[str | None] = mapped_column(String(64), default=None)
    wanted_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)


class PolicyRow(Base):
    """A retention policy (design 4.5). Another one of its data type, or deleting it, sets `ended_ms`:
    the history is append-only.
    """

    __tablename__ = "retention_policies"

    policy_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    data_type: Mapped[str] = mapped_column(String(256))
    retention_days: Mapped[int] = mapped_column(Integer)
    archive_after_days: Mapped[int] = mapped_column(Integer)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    ended_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)


class FloorRow(Base):
    """A retention floor (`contracts.floors.Floor`), for ever."""

    __tablename__ = "retention_floors"

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    data_type: Mapped[str] = mapped_column(String(256))
    excepted: Mapped[list[str]] = mapped_column(JSON)
    floor_ms: Mapped[int] = mapped_column(BigInteger)
    from_ms: Mapped[int] = mapped_column(BigInteger)


class DeletionRow(Base):
    """A deletion that was begun or asked for. What names a person goes when it is done."""

    __tablename__ = "deletions"

    deletion_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    tenant_id: Mapped[str] = mapped_column(String(64))
    who: Mapped[str] = mapped_column(String(256))
    predicate: Mapped[dict[str, Any]] = mapped_column(JSON)
    at_once: Mapped[bool] = mapped_column()
    erased: Mapped[dict[str, Any]] = mapped_column(JSON)
    requested_ms: Mapped[int] = mapped_column(BigInteger)
    deleted_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    finished_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)


class VersionRow(Base):
    """One row: grows with every change of sources, keys, tokens or metrics."""

    __tablename__ = "registry_version"

    row: Mapped[int] = mapped_column(Integer, primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, default=0)
