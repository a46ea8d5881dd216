"""The commit of a batch's rows to one table: its files, its offsets, and what it says of itself."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence

from dc_platform.broker.records import TopicInfo
from dc_platform.contracts.tables import TableSpec
from dc_platform.errors import CommitConflictError, StoreUnavailableError
from dc_platform.lake.border import write_border
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch import Batch

log = logging.getLogger(__name__)


def app_id(spec: TableSpec, info: TopicInfo, partition: int, epoch: int = 0) -> str:
    """Key of a partition's offset in the table's log. A recreated topic starts at zero again, and an
    epoch where the restore that began it put it.
    """
    return in_epoch(f"{spec.name}/{info.cluster_id}/{info.topic_id}/{partition}", epoch)


def in_epoch(key: str, epoch: int) -> str:
    """The key of epoch 0 as another epoch has it."""
    return f"{key}@{epoch}" if epoch else key


def epoch_app_id(spec: TableSpec) -> str:
    """Key of the table's epoch in its own log."""
    return f"{spec.name}/epoch"


def epoch_of(table: LakeTable) -> int:
    """How often the table was restored to a former state, in this snapshot: offsets of former epochs
    no longer count. 0 until then.
    """
    return table.txn(epoch_app_id(table.spec)) or 0


def next_offset(table: LakeTable, info: TopicInfo, partition: int) -> int | None:
    """First offset of a partition that has not landed in the table; None when none ever did."""
    return table.txn(app_id(table.spec, info, partition, epoch_of(table)))


def publish_border(border: LakeTable, silver: LakeTable, info: TopicInfo) -> None:
    """Say in `border`, ops.landing_border, where silver's snapshot stands.

    Of all partitions, not only of one writer's: all rows are of one version of silver.
    """
    offsets = {p: next_offset(silver, info, p) or 0 for p in range(info.partitions)}
    try:
        write_border(border, info.topic_id, offsets, silver.version)
    except StoreUnavailableError as error:
        # Trino's view stays right with an old border; the next commit brings a new one.
        log.warning("%s", error)


def any_live(table: LakeTable, files: Sequence[DataFile]) -> bool:
    """Whether the table's snapshot has one of these files."""
    live = set(table.snapshot().actions["path"].to_pylist()) if files else set()
    return any(file.path in live for file in files)


def commit_batch(
    table: LakeTable,
    info: TopicInfo,
    files: Sequence[DataFile],
    ends: Mapping[int, int],
    batch: Batch,
    *,
    owner: str,
    exact: bool,
) -> bool:
    """Commit `files` with the offset up to which each partition has landed, partition → `ends`.

    False after a conflict; the table is refreshed then. Raises StoreUnavailableError when the store
    failed and the commit is not in the log.
    """
    epoch = epoch_of(table)
    txns = {app_id(table.spec, info, partition, epoch): end for partition, end in ends.items()}
    commit_id = uuid.uuid4().hex
    metadata = {
        "dcp.commit": commit_id,
        "dcp.owner": owner,
        "dcp.topic": info.topic_id,
        "dcp.ranges": json.dumps({p: [r.start, r.end] for p, r in batch.ranges.items()}),
    }
    if batch.gaps:
        metadata["dcp.gaps"] = json.dumps([list(gap) for gap in batch.gaps])
    if batch.counted is not None:
        metadata["dcp.counted"] = json.dumps(batch.counted)
    before = table.version
    try:
        table.commit(files, txns=txns, exact=exact, metadata=metadata)
    except (CommitConflictError, StoreUnavailableError) as error:
        # Either may come from a commit that is in the log nevertheless: a put that the store
        # answered with an error, or that it repeated and then found taken, by itself.
        table.refresh()
        since = table.history(table.version - before) if table.version > before else []
        # Of a log that was cleaned meanwhile the entry may be gone: then its file tells.
        if any(entry.get("dcp.commit") == commit_id for entry in since) or any_live(table, files):
            log.warning("commit to %s failed (%s) but is in the log", table.spec.name, error)
            return True
        if isinstance(error, StoreUnavailableError):
            raise
        return False
    return True
