"""Quarantined events of a day judged again and replayed, as an asset: a backfill of it is a replay.

A run speaks of one ingest date of quarantine. Landing, which goes on meanwhile, lands what it sends.
"""

from datetime import date

import dagster as dg
from pydantic import Field

from dc_platform.contracts.merge_patch import read_patch
from dc_platform.contracts.ops_tables import REPLAYS
from dc_platform.errors import ConfigurationError
from dc_platform.lake.replays import Selection
from dc_platform.lake.store import Lake
from dc_platform.landing.replay import Replay, Replayed, replay_day, today
from dc_platform.orchestration.assets import DAYS, OWNERS, QUARANTINE_KEY
from dc_platform.orchestration.metadata import column_schema
from dc_platform.points import armed
from dc_platform.registry.database import Database
from dc_platform.registry.sources import Sources
from dc_platform.settings import settings

REPLAY_KEY = dg.AssetKey(["silver", "quarantine_replay"])


class ReplayConfig(dg.Config):
    """Which rows of the day, and how they are repaired; empty does not choose."""

    reason: str = Field("", description="Only rows with this typed reason (docs/tables.md).")
    source: str = Field("", description="Only rows of the source with this id.")
    schema_version: str = Field("", description="Only rows that were judged with this version.")
    patch: str = Field(
        "",
        description="The repair: a JSON Merge Patch (RFC 7396) that is applied to each event, such as"
        ' {"eventType": "order"}. Rules that changed since need none.',
    )
    dry_run: bool = Field(False, description="Only say what a replay would do.")

    def replay(self, run: str) -> Replay:
        """What is asked for; raises ConfigurationError for a patch that is none."""
        return Replay(
            run,
            Selection(self.reason or None, self.source or None, self.schema_version or None),
            read_patch(self.patch) if self.patch else None,
            self.dry_run,
        )


@dg.asset(
    key=REPLAY_KEY,
    deps=[QUARANTINE_KEY],
    partitions_def=DAYS,
    group_name="silver",
    kinds={"deltalake", "kafka"},
    owners=OWNERS,
    description="Quarantined events of an ingest date, judged by today's rules and sent through Kafka"
    " once more where they pass; landing lands each once. What became of them is in ops.replays."
    " Materialize it after a fix, or with a patch that repairs the events; twice adds nothing.",
    metadata={"dagster/column_schema": column_schema(REPLAYS)},
    pool="quarantine_replay",
)
def quarantine_replay(
    context: dg.AssetExecutionContext, config: ReplayConfig
) -> dg.MaterializeResult[None]:
    """Replays one ingest date of quarantine."""
    configured = settings()
    try:
        replay = config.replay(context.run_id)
    except ConfigurationError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    database = Database(configured.registry)
    accept = configured.unknown_sources == "accept"
    try:
        done = replay_day(
            configured,
            Lake(configured.lake),
            date.fromisoformat(context.partition_key),
            replay,
            now=today(Sources(database), accept_unknown=accept),
            reached=armed(configured.crash_at),
        )
    finally:
        database.close()
    return dg.MaterializeResult(metadata=replay_metadata(done, replay))


def replay_metadata(done: Replayed, replay: Replay) -> dict[str, dg.MetadataValue | int | bool]:
    """What the UI shows of a replay."""
    return {
        "dry run": replay.dry_run,
        "open rows": done.rows,
        "replayed": done.replayed,
        "already in silver": done.known,
        "still rejected": done.rejected,
        "still rejected, by reason": dg.MetadataValue.json(dict(done.still)),
        "examples": dg.MetadataValue.json(done.examples),
    }
