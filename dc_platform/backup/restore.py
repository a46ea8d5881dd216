"""Silver as it was at a moment, in place: its files and its offsets in one commit.

The commit begins a new epoch: offsets are kept under app ids that end with it, and those of the epochs
before no longer count. So the offsets go back together with the files, which they do not when delta-rs
restores a table. Whoever landed in the epoch before is fenced, and the tail begins anew.

Then landing lands again what came after the moment: from Kafka, and from bronze where Kafka no longer
has it. **Bronze and quarantine do not go back**: each has every event once, whatever is done to
silver, and may be the only one that still has it. What they lost themselves `mend.py` brings back.

Of a topic that is gone nothing will land again: what silver had of it after the moment is built anew
from bronze, by a backfill of its ingest dates.

A restore that is killed is run again: until the commit nothing has happened but that files without a
name in the log lie in the table's directory (vacuum removes them) and the border for Trino is low.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from dc_platform.backup.files import taken_in
from dc_platform.contracts.ops_tables import LANDING_BORDER
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.errors import CommitConflictError
from dc_platform.lake.border import lands_now, write_border
from dc_platform.lake.moment import Moment
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, table_sql
from dc_platform.landing.backfill import backfill_silver
from dc_platform.landing.batch_commit import epoch_app_id, epoch_of
from dc_platform.points import Point, Reached, unarmed

log = logging.getLogger(__name__)

# Backfills and compaction commit beside it, each of them now and then.
_RETRIES = 10
_APP_ID = re.compile(r"(?P<table>[^/]+)/(?P<cluster>[^/]*)/(?P<topic>[^/]+)/(?P<partition>\d+)")


class Restored(NamedTuple):
    """What was done: silver's version now, its rows before and after, files that came and went, and
    the ingest dates that were built anew because their topic is gone.
    """

    version: int
    epoch: int
    rows_before: int
    rows: int
    files_added: int
    files_removed: int
    rebuilt: list[date]


Offsets = dict[tuple[str, str, int], int]


def offsets_of(app_ids: Mapping[str, int], epoch: int = 0) -> Offsets:
    """(cluster id, topic id, partition) → next offset, of the app ids of an epoch."""
    suffix = f"@{epoch}" if epoch else ""
    found = {}
    for name, offset in app_ids.items():
        match = _APP_ID.fullmatch(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if match:
            found[match["cluster"], match["topic"], int(match["partition"])] = offset
    return found


def restore_silver(lake: Lake, moment: Moment, *, reached: Reached = unarmed) -> Restored:
    """Put silver back to the moment; raises CommitConflictError after many tries."""
    lake.ensure(SILVER_EVENTS)
    lake.ensure(LANDING_BORDER)
    offsets = offsets_of(moment.offsets, moment.offsets.get(epoch_app_id(SILVER_EVENTS), 0))
    for _ in range(_RETRIES):
        table = LakeTable(lake, SILVER_EVENTS)
        before = table.snapshot()
        live = set(before.actions["path"].to_pylist())
        wanted = {file.path for file in moment.files}
        coming = [file for file in moment.files if file.path not in live]
        files = taken_in(lake, SILVER_EVENTS, moment.root, coming)
        reached(Point.RESTORE_FILES)
        _lower_border(lake, offsets, table.version + 1)
        reached(Point.RESTORE_BORDER)
        epoch = epoch_of(table) + 1
        try:
            version = table.put_in_place(
                live - wanted,
                files,
                metadata=_said(moment, epoch, offsets),
                txns=_txns(offsets, epoch),
            )
        except CommitConflictError as error:
            log.info("%s; looking again", error)
            for file in files:
                lake.remove(SILVER_EVENTS, file.path)
            continue
        reached(Point.RESTORE_COMMITTED)
        rebuilt = _rebuild_gone_topics(lake, moment)
        after = LakeTable(lake, SILVER_EVENTS).snapshot()
        return Restored(
            version, epoch, before.rows, after.rows, len(files), len(live - wanted), rebuilt
        )
    raise CommitConflictError(
        f"silver.events moved {_RETRIES} times while it was restored: end what writes to it, try again"
    )


def _txns(offsets: Offsets, epoch: int) -> dict[str, int]:
    name = SILVER_EVENTS.name
    txns = {f"{name}/{c}/{t}/{p}@{epoch}": offset for (c, t, p), offset in offsets.items()}
    return {**txns, epoch_app_id(SILVER_EVENTS): epoch}


def _said(moment: Moment, epoch: int, offsets: Offsets) -> dict[str, str]:
    by_topic: dict[str, dict[int, int]] = {}
    for (_, topic, partition), offset in offsets.items():
        by_topic.setdefault(topic, {})[partition] = offset
    said = {"version": moment.version, "of": moment.committed_at.isoformat(), "epoch": epoch}
    return {"dcp.restore": json.dumps({**said, "offsets": by_topic})}


def _lower_border(lake: Lake, offsets: Offsets, version: int) -> None:
    """A border that lags is right at any time; one that is ahead of silver hides what is between.

    Of the topic that lands now. Those before it have nothing to land again, and their borders tell a
    backfill what silver had.
    """
    border = LakeTable(lake, LANDING_BORDER)
    topic, partitions = lands_now(border)
    if topic is None:
        return
    ends = {p: offset for (_, t, p), offset in offsets.items() if t == topic}
    write_border(border, topic, {p: ends.get(p, 0) for p in {*partitions, *ends}}, version)


def _rebuild_gone_topics(lake: Lake, moment: Moment) -> list[date]:
    """Backfills for what landed after the moment from topics that no longer land."""
    topic, _ = lands_now(LakeTable(lake, LANDING_BORDER))
    if topic is None or not lake.exists(BRONZE_EVENTS):
        return []
    rows = table_sql(BRONZE_EVENTS, LakeTable(lake, BRONZE_EVENTS).snapshot())
    with scratch() as connection:
        found = connection.execute(
            f"select distinct ingest_date from ({rows})"
            " where topic_id <> $topic and ingest_date >= $since order by all",
            {"topic": topic, "since": moment.committed_at.date()},
        ).fetchall()
    days = [day for (day,) in found]
    for day in days:
        backfill_silver(lake, day)
    return days
