"""What a flood left in the lake: silver's commits with their times, and the exact audit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dc_platform.bench.flood_figures import Commit
from dc_platform.broker.client import describe_topic
from dc_platform.broker.reader import reader_for
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, table_sql
from dc_platform.landing.batch_commit import next_offset


class Backlog:
    """Kafka records that silver does not have yet, asked of both; for when nothing is timed."""

    def __init__(self, bootstrap: str, topic: str, lake: Lake) -> None:
        info = describe_topic(bootstrap, topic)
        assert info is not None
        self._info = info
        self._reader = reader_for(bootstrap, info)
        self._silver = LakeTable(lake, SILVER_EVENTS)

    def records(self) -> int:
        """How many wait."""
        ends = self._reader.end_offsets()
        self._silver.refresh()
        done = {p: next_offset(self._silver, self._info, p) or 0 for p in ends}
        return sum(max(0, end - done[p]) for p, end in ends.items())

    def close(self) -> None:
        """Disconnect."""
        self._reader.close()


def silver_commits(lake: Lake) -> list[Commit]:
    """The commits that landed something, in their order.

    A commit can be read from when its file is in the log: that is the file's own time, which is
    later than the time that the writer put into it.
    """
    table = LakeTable(lake, SILVER_EVENTS)
    found = []
    for entry in reversed(table.history()):
        if "dcp.ranges" in entry:
            file = Path(table.uri) / "_delta_log" / f"{entry['version']:020}.json"
            at = file.stat().st_mtime if file.exists() else entry["timestamp"] / 1000
            ranges = json.loads(entry["dcp.ranges"])
            found.append(Commit(at, {int(p): end for p, (_, end) in ranges.items()}))
    return found


def probes_in_silver(lake: Lake, source_id: str) -> pa.Table:
    """event_id, partition and offset of what the prober's source sent."""
    with scratch() as connection:
        snapshot = LakeTable(lake, SILVER_EVENTS).snapshot()
        return connection.execute(
            "select event_id, kafka_partition as partition, kafka_offset as offset"
            f" from ({table_sql(SILVER_EVENTS, snapshot)}) where source_id = $source",
            {"source": source_id},
        ).to_arrow_table()


_AUDIT = """
    with by_record as (
        select kafka_partition as partition, kafka_offset as "offset", count(*) as rows,
               count(distinct kafka_index) as indexes
        from silver where source_id <> $source group by all
    )
    select coalesce(sum(acks.events), 0)::bigint as acknowledged,
           coalesce(sum(greatest(acks.events - coalesce(r.indexes, 0), 0)), 0)::bigint as lost,
           coalesce(sum(r.rows) filter (acks.events is null), 0)::bigint as not_acknowledged
    from acks full join by_record r using (partition, "offset")
"""


def audit(lake: Lake, acks: pa.Table, source_id: str, probes: Sequence[str]) -> dict[str, Any]:
    """What was acknowledged against what silver has, event by event.

    Every event of the load has its Kafka address in silver, and an id of its own. `doubled` are rows
    whose identity another row has, too. `not_acknowledged` are of blocks whose acknowledgement was
    lost: allowed, as a client would have sent them again under the same ids.
    """
    with scratch() as connection:
        snapshot = LakeTable(lake, SILVER_EVENTS).snapshot()
        connection.execute(f"create temp view silver as {table_sql(SILVER_EVENTS, snapshot)}")
        connection.register("acks", acks)
        acknowledged, lost, extra = connection.execute(_AUDIT, {"source": source_id}).fetchall()[0]
        rows, identities = connection.execute(
            "select count(*), count(distinct (source_id::uuid, event_id::uuid)) from silver"
        ).fetchall()[0]
        landed = connection.execute(
            "select event_id from silver where source_id = $source", {"source": source_id}
        ).fetchall()
    missing = set(probes) - {event_id for (event_id,) in landed}
    return {
        "acknowledged_events": acknowledged + len(probes),
        "landed_events": rows,
        "lost_events": lost + len(missing),
        "doubled_events": rows - identities,
        "not_acknowledged_events": extra,
    }
