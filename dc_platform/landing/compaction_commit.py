"""The commit that puts a merged file in the place of its files, beside whoever else commits."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass

from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.errors import RetriableError
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.table import LakeTable
from dc_platform.lake.turns import Turns
from dc_platform.landing.compaction_plan import Job

# In turn the first is enough, but for bronze, whose writers take none: of each other slot one commit
# may come within the few milliseconds of each.
_TRIES = 8


@dataclass(frozen=True)
class Merged:
    """A file that is written and not committed, and the files whose rows it has."""

    spec: TableSpec
    job: Job
    file: DataFile
    seconds: float


def commit_merged(table: LakeTable, turns: Turns, merged: Merged) -> bool:
    """Commit the merged file as long as all of its files are live; False when it is not live and never
    will be. Raises RetriableError when that is not known.

    `turns` are those at silver.
    """
    paths, file = merged.job.paths, merged.file
    for left in reversed(range(_TRIES)):
        with turns.taken() if table.spec is SILVER_EVENTS else nullcontext():
            table.refresh()
            before = table.version
            try:
                if table.rewrite(paths, file, metadata=_metadata(merged)) is not None:
                    return True
            except RetriableError:
                table.refresh()
                # Of an unanswered put for the next version nobody knows until that is taken.
                if not left and table.version == before:
                    raise
                if not _is_live(table, file.path):
                    continue
            # A store that repeats a put by itself, or answers it with an error, may have made it.
            return _is_live(table, file.path)
    return False


def _metadata(merged: Merged) -> dict[str, str]:
    done = {
        "files": len(merged.job.files),
        "rows": merged.file.rows,
        "bytes": [merged.job.bytes, merged.file.size],
        "closed hour": merged.job.ordered,
        "seconds": round(merged.seconds, 3),
    }
    return {"dcp.compaction": json.dumps(done)}


def _is_live(table: LakeTable, path: str) -> bool:
    return path in table.snapshot().actions["path"].to_pylist()
