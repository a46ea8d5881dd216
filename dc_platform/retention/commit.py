"""Files in the place of others, beside whoever else commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np

from dc_platform.contracts.tables import SILVER_EVENTS, TableSpec
from dc_platform.errors import RetriableError
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.origins import keep_origin, remove_origin
from dc_platform.lake.parquet import DataFile, read_batches
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.lake.turns import Turns
from dc_platform.landing.keys import KeyMaker, Keys

# In turn the first is enough, but for bronze, whose writers take none.
_TRIES = 20


def put_in_place(
    table: LakeTable,
    turns: Turns,
    old: Sequence[str],
    files: Sequence[DataFile],
    *,
    metadata: Mapping[str, str],
    changes_data: bool,
) -> bool:
    """Put `files` in the place of `old` (paths relative to the table); False, and nothing is done, when
    one of those is no longer live. `turns` are those at silver.
    """
    for _ in range(_TRIES):
        with turns.taken() if table.spec is SILVER_EVENTS else nullcontext():
            table.refresh()
            if not _live(table).issuperset(old):
                return False
            try:
                if changes_data:
                    table.put_in_place(old, files, metadata=metadata)
                elif table.rewrite(old, *files, metadata=metadata) is None:
                    return False
                return True
            except RetriableError:
                # A store that repeats a put by itself, or answers it with an error, may have made it.
                table.refresh()
                live = _live(table)
                if live.isdisjoint(old) and live.issuperset(file.path for file in files):
                    return True
    return False


def keep_beside(table: LakeTable, file: DataFile, of: Sequence[str]) -> None:
    """Keep beside a file of silver its identities, and beside any that it has no other rows than the
    files `of`.
    """
    if table.spec is SILVER_EVENTS:
        maker = KeyMaker(table.id)
        keys = [Keys(np.empty(0, np.uint64), np.empty(0, np.uint64))]
        scopes = [np.empty(0, np.int64)]
        columns = ["source_id", "event_id", "dedup_scope"]
        for batch in read_batches(f"{table.uri}/{file.path}", columns):
            keys.append(maker.keys(batch.column(0), batch.column(1)))
            scopes.append(batch.column(2).to_numpy().astype(np.int64))
        high, low = (np.concatenate(words) for words in zip(*keys, strict=True))
        kept = IdentityFiles(table.lake, SILVER_EVENTS, maker.mark)
        kept.write(file.path, high, low, np.concatenate(scopes))
    keep_origin(table.lake, table.spec, file.path, of)


def drop(lake: Lake, spec: TableSpec, files: Sequence[DataFile]) -> None:
    """Remove files that are certainly not live, with what was kept beside them."""
    for file in files:
        lake.remove(spec, file.path)
        if spec is SILVER_EVENTS:
            IdentityFiles(lake, spec, b"").remove(file.path)
        else:
            remove_origin(lake, spec, file.path)


def _live(table: LakeTable) -> set[str]:
    return set(table.snapshot().actions["path"].to_pylist())
