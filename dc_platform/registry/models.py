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
    schema: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    enabled: Mapped[bool] = mapped_column(default=True)
    last_seen_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)
    ingestion_rate: Mapped[float] = mapped_column(Float, default=0.0)
    rejecting: Mapped[bool] = mapped_column(default=False)
    created_ms: Mapped[int] = mapped_column(BigInteger)
    deleted_ms: Mapped[int | None] = mapped_column(BigInteger, default=None)


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


class VersionRow(Base):
    """One row: grows with every change of sources, keys, tokens or metrics."""

    __tablename__ = "registry_version"

    row: Mapped[int] = mapped_column(Integer, primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, default=0)
