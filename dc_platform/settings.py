"""Every setting of the platform, read from the environment (`DCP_…`) once per process.

This module is the only reader of the environment. The description of each field is its
documentation: `make docs` writes docs/settings.md from it, and a test fails when the page is stale.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dc_platform.broker.records import KafkaClient
from dc_platform.contracts.fields import json_path
from dc_platform.errors import ConfigurationError


class Settings(BaseSettings):
    """Settings with the design's figures as defaults."""

    model_config = SettingsConfigDict(env_prefix="DCP_", frozen=True, extra="ignore")

    # --- where things are ---
    data_dir: Path = Field(Path(".dcp"), description="Directory of a local stack.")
    kafka_bootstrap: str = Field("127.0.0.1:9092", description="Kafka brokers, host:port,….")
    kafka_client: KafkaClient = Field(
        "auto",
        description="What reads Kafka. `librdkafka` is an extra (`dc-platform[librdkafka]`) and takes"
        " a sixth of the CPU time that `kafka-python` takes for a record; `auto` uses it where it is"
        " installed.",
    )
    topic: str = Field("events-raw", description="Kafka topic that is the write-ahead log.")
    topic_partitions: int = Field(
        4, ge=1, description="Partitions of the topic when the platform creates it."
    )
    topic_replication: int = Field(
        1, ge=1, description="Replicas of the topic when the platform creates it (3 in production)."
    )
    lake_uri: str = Field(
        "", description="Root of the lake, a directory or file:///path; empty: DCP_DATA_DIR/lake."
    )
    registry_url: str = Field(
        "", description="SQLAlchemy URL of the registry; empty: SQLite in DCP_DATA_DIR."
    )

    # --- gateway ---
    gateway_id: str = Field(
        "gateway-1", description="Name of this gateway instance; part of every block's identity."
    )
    max_body_bytes: int = Field(
        10 * 2**20, ge=1024, description="Largest body as sent, in bytes; above it: 413."
    )
    max_decompressed_bytes: int = Field(
        64 * 2**20, ge=1024, description="Largest body after decompression, in bytes; above: 413."
    )
    max_event_bytes: int = Field(
        2**20,
        ge=1024,
        le=10 * 2**20,
        description="Largest event in bytes, 10 MiB at most; a larger one is rejected and kept.",
    )
    batch_events: int = Field(1000, ge=1, description="Events per Kafka block (design 6.1).")
    batch_wait_ms: int = Field(
        100, ge=0, description="Longest wait of an event for its block to fill (design 6.1)."
    )
    ack_timeout_seconds: float = Field(
        10.0, gt=0, description="Longest wait for Kafka's acknowledgement; after it: 503."
    )
    breaker_failures: int = Field(
        5, ge=1, description="Failures in a row that open the circuit to Kafka (design 6.8)."
    )
    breaker_seconds: float = Field(
        60.0,
        gt=0,
        description="Longest time the circuit stays open (design 6.8); it closes as soon as a probe"
        " of the broker succeeds.",
    )
    queue_events: int = Field(
        10_000, ge=1, description="Events waiting for Kafka in one gateway (design 6.9)."
    )
    queue_slowdown: float = Field(
        0.8, gt=0, le=1, description="Fill of the queue from which on requests slow (design 6.9)."
    )
    queue_slow_rate: int = Field(
        1000, ge=1, description="Requests per second let in while the queue is that full (6.9)."
    )
    future_limit_seconds: int = Field(
        3600, ge=0, description="How far a timestamp may lie ahead of its receipt (design 6.10)."
    )
    registry_refresh_seconds: float = Field(
        2.0, gt=0, description="How soon a new or revoked key is known to a gateway."
    )

    # --- landing ---
    late_seconds: int = Field(
        3600,
        ge=0,
        description="An event that is received so long after its own time has the flag `late`. The"
        " same for landing and serving.",
    )
    unknown_sources: Literal["quarantine", "accept"] = Field(
        "quarantine",
        description="What happens to records of sources that are not registered; accept: benches.",
    )
    landing_slots: int = Field(
        1,
        ge=1,
        le=8,
        description="Landing runs that share the topic: slot i lands each partition p with p % slots"
        " = i. The same for all processes of a platform; restart it to change it.",
    )
    landing_freshness_seconds: float = Field(
        1.0,
        gt=0,
        description="Target from an event's arrival in Kafka to its commit. An idle topic commits at"
        " once, a trickle once per target, a flood by size.",
    )
    landing_file_mb: float = Field(
        32.0,
        gt=0,
        description="Target size of silver's data files in a flood, as far as memory allows: a batch"
        " never holds more than 150,000 events or 128 MiB of records.",
    )
    landing_run_minutes: float = Field(
        10.0, gt=0, description="Age at which a landing run is handed over to a successor."
    )
    landing_report_seconds: float = Field(
        30.0, gt=0, description="How often a landing run reports to Dagster."
    )
    lease_stale_seconds: float = Field(
        10.0, gt=1, description="Age at which an unrenewed lease may be taken."
    )
    identity_memory_mb: int = Field(
        512,
        ge=8,
        description="Memory for the identities that duplicates are looked up in, of the hours that"
        " a batch touches; the tail has half as much. 512 are good for 469 million, 234 in the tail;"
        " past that the identity files are searched for every batch.",
    )

    retention_warn: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the topic's retention that unlanded records may use up before the"
        " check retention_guard warns.",
    )
    retention_error: float = Field(0.8, gt=0, le=1, description="The same, before it is an error.")
    compaction_file_mb: int = Field(
        256, ge=1, description="Size of the files that compaction makes of a closed ingest hour."
    )
    compaction_hour_seconds: int = Field(
        3600, ge=1, description="Length of an ingest hour; shorter only to test compaction."
    )
    log_commits: int = Field(
        2000,
        ge=100,
        description="Newest commits of silver that stay in its log: how far the audit of offsets"
        " (2,000) and time travel look back. A thousand of them cost each commit on a local disk"
        " 6 ms. Of the other tables 200 stay.",
    )
    removed_files_minutes: float = Field(
        120.0,
        ge=1,
        description="How long files that compaction or a backfill replaced stay on disk, for queries"
        " of older versions. Above the longest query, and above the longest pause of a writer.",
    )

    # --- backup ---
    backup_uri: str = Field(
        "",
        description="Where backups go, a directory or file:///path, better on another disk; empty: no"
        " backups. Set, the job backup makes one each night (UTC).",
    )
    backup_keep: int = Field(
        7, ge=1, description="Newest backups that stay when the job backup has made another."
    )
    # --- tiers and retention ---
    tier_hot_days: float = Field(
        7.0, gt=0, description="Age of an event at which its files become warm (design 6.3)."
    )
    tier_warm_days: float = Field(
        90.0,
        gt=0,
        description="Age at which they become cold (design 6.3), for event types without a retention"
        " policy; a policy's archiveAfterDays says it for its own.",
    )
    tier_warm_level: int = Field(9, ge=1, le=22, description="ZSTD level of warm files.")
    tier_cold_level: int = Field(
        15,
        ge=1,
        le=22,
        description="ZSTD level of cold files. 19 takes 9 % less room and five to seven times as long.",
    )
    tier_hot_price: float = Field(
        0.10, ge=0, description="Dollars per GB and month of hot files, for dry runs (design 6.3)."
    )
    tier_warm_price: float = Field(0.02, ge=0, description="The same of warm files.")
    tier_cold_price: float = Field(0.004, ge=0, description="The same of cold files.")

    # --- index ---
    indexed_fields: str = Field(
        "userId,user_id",
        description="Payload paths, separated by commas, by whose values silver's files of closed hours"
        " and older days are indexed (docs/query.md), 8 bytes an event that has the field; empty: none."
        " A change holds for all files once landing has made them anew, some minutes later.",
    )

    # --- gold ---
    sketch_items: str = Field(
        "page,url",
        description="Payload paths whose values gold.sketches_hourly counts as items (`items_top`),"
        " separated by commas: the first that an event has. A change holds for hours built from then"
        " on.",
    )

    # --- serving ---
    tail_memory_mb: int = Field(
        256, ge=8, description="Memory of the tail; older rows of it spill to disk."
    )
    tail_disk_mb: int = Field(
        20_480, ge=8, description="Disk of the tail; past it answers say complete: false."
    )
    query_memory_mb: int = Field(1024, ge=64, description="Memory of all queries but those in SQL.")
    query_timeout_seconds: float = Field(60.0, gt=0, description="Longest work on the next rows.")
    query_temp_mb: int = Field(
        10_240, ge=0, description="Disk that queries may spill to; those in SQL share as much."
    )
    query_concurrency: int = Field(
        24, ge=1, description="Queries that run at once, but those in SQL; with them below 40."
    )
    query_tenant_concurrency: int = Field(8, ge=1, description="The same, of one tenant.")
    query_wait_seconds: float = Field(10.0, gt=0, description="Longest wait for a turn, then 429.")
    sql_concurrency: int = Field(
        6, ge=1, description="Queries in SQL that run at once, each in a process of its own."
    )
    sql_tenant_concurrency: int = Field(3, ge=1, description="The same, of one tenant.")
    sql_memory_mb: int = Field(
        1024, ge=64, description="Memory of a query in SQL; its process may have 512 MiB more."
    )
    serving_memory_mb: int = Field(
        0,
        ge=0,
        description="Memory of a serving process beside mapped files; past it a query that would"
        " take more ends; 0: what tail, identities and queries may have, and 3 GiB.",
    )
    query_cache_mb: int = Field(
        64,
        ge=0,
        description="Memory of the answers that are kept until the data that they are of changes,"
        " beside DCP_QUERY_MEMORY_MB; an answer may take an eighth of it, and 0 keeps none.",
    )
    recent_memory_mb: int = Field(
        128,
        ge=0,
        description="Of DCP_QUERY_MEMORY_MB, what the newest rows of silver may take; 0: none. Each"
        " process for light queries, which read nothing else, has a quarter of both beside it.",
    )
    query_threads: int = Field(2, ge=1, description="Threads of queries, processes for light ones.")

    # --- gold ---
    trino_url: str = Field(
        "",
        description="Base URL of the Trino that `dcp sql --engine trino`, `dcp gold build --target"
        " trino` and `dcp trino` ask; empty: the stack's.",
    )
    gold_trino_catalog: str = Field(
        "lake",
        description="Catalog that dbt writes gold into on Trino. In another one than `lake`, on an"
        " object store, hours can be merged.",
    )
    gold_trino_schema: str = Field(
        "gold_trino", description="Schema that dbt writes gold into on Trino."
    )

    # --- search ---
    search_memory_mb: int = Field(
        64, ge=16, description="Memory in which a build of the search index gathers words."
    )
    search_behind_rows: int = Field(
        20_000,
        ge=1,
        description="Events of silver that are not in the search index yet from which on a build of"
        " it begins.",
    )
    search_behind_minutes: float = Field(
        10.0, gt=0, description="Age of an event of silver at which a build begins for its sake."
    )
    search_forget_days: float = Field(
        30.0,
        gt=0,
        description="Days after which words of deleted events have left the files of the search index:"
        " it is built anew then.",
    )
    search_fresh_rows: int = Field(
        500_000,
        ge=0,
        description="Events beside the index, not in it yet or still in Kafka, that a search looks"
        " through; past it answers say complete: false. 100,000 take half a second the first time, and"
        " 25 MB for as long as they are not in the index.",
    )

    # --- Dagster ---
    dagster_keep_days: float = Field(
        3.0,
        gt=0,
        description="Days for which runs of the platform's jobs, and what they reported, stay in"
        " Dagster's storage; the newest of everything stays. Some 60 MB a day in SQLite.",
    )

    # --- all parts ---
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level that is logged."
    )
    crash_at: str = Field(
        "", description="For tests: it kills itself there, point[:nth] (docs/reliability.md)."
    )

    @field_validator("indexed_fields")
    @classmethod
    def _paths(cls, value: str) -> str:
        for name in _names_in(value):
            json_path(name)
        return value

    @field_validator("lake_uri", "backup_uri")
    @classmethod
    def _is_supported(cls, value: str, info: ValidationInfo) -> str:
        _directory(value, f"DCP_{info.field_name}".upper())
        return value

    @property
    def acks_topic(self) -> str:
        """The topic of what was acknowledged."""
        return f"{self.topic}-acks"

    @property
    def lake(self) -> str:
        """Root of the lake: a directory."""
        return _directory(self.lake_uri) or str((self.data_dir / "lake").absolute())

    @property
    def backups(self) -> Path | None:
        """The directory of backups; None when there are to be none."""
        directory = _directory(self.backup_uri, "DCP_BACKUP_URI")
        return Path(directory).absolute() if directory else None

    @property
    def registry(self) -> str:
        """SQLAlchemy URL of the registry."""
        return self.registry_url or f"sqlite:///{(self.data_dir / 'registry.db').absolute()}"

    @property
    def index_fields(self) -> tuple[str, ...]:
        """`indexed_fields` one by one."""
        return _names_in(self.indexed_fields)

    @property
    def sketch_item_fields(self) -> tuple[str, ...]:
        """`sketch_items` one by one."""
        return _names_in(self.sketch_items)

    @property
    def future_limit_ms(self) -> int:
        """`future_limit_seconds` in milliseconds."""
        return self.future_limit_seconds * 1000

    @property
    def late_ms(self) -> int:
        """`late_seconds` in milliseconds."""
        return self.late_seconds * 1000


def _names_in(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _directory(uri: str, setting: str = "DCP_LAKE_URI") -> str:
    """The path of a `file://` URI; what is no URI is a path already."""
    scheme, colon, rest = uri.partition("://")
    if not colon:
        return uri
    host, _, path = rest.partition("/")
    if scheme.lower() != "file":
        raise ConfigurationError(
            f"{setting}: {scheme}:// is not supported yet: write a directory or file:///path"
        )
    if host not in ("", "localhost") or not path:
        raise ConfigurationError(f"{setting}: {uri} names no directory: write file:///path")
    return "/" + unquote(path)


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings()
