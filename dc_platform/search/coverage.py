"""An index beside a version of silver.

Compared are the files, not the commits between: of silver's log the newest 2,000 entries stay, and a
file that is live in one version and not in another was removed, whoever did it. What compaction merged
is told by what lies beside the merged file (`lake/origins.py`); where that is not known the merged file
counts as a new one and its old rows as gone, which costs time and is right all the same. So do files
that were made from others and do not have all of their rows: those of a deletion, and the two of a day
part of which becomes cold.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.origins import origin_of
from dc_platform.lake.parquet import LANDED
from dc_platform.lake.rewrite import rows_in
from dc_platform.lake.store import Lake
from dc_platform.lake.table import Snapshot
from dc_platform.search.state import Coverage, Covered, Missing, State, joined_ranges

_OF_A_FILE = ("partition.ingest_date", "modification_time", "path", "num_records")
_GONE = -(2**62)


class Comparer:
    """Compares indexes with versions of silver of one lake. Thread-safe."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        # Files never change, and neither does what they were merged from.
        self._origins = lru_cache(maxsize=20_000)(self._read_origins)
        self._rows_in = lru_cache(maxsize=20_000)(self._read_rows)

    def compare(self, state: State, snapshot: Snapshot) -> Coverage:
        """What of the snapshot the index covers."""
        files: dict[str, Covered] = {}
        missing: list[Missing] = []
        for path, rows in newest_first(snapshot).items():
            if path in state.files:
                files[path] = state.files[path]
                continue
            covered, rest = self._taken_apart(path, rows, state.files)
            if covered is not None:
                files[path] = covered
            missing += (Missing(part, path) for part in rest)
        kept = joined_ranges(r for file in files.values() for r in file.pieces)
        gone = tuple(
            r
            for path, file in state.files.items()
            if path not in files and not file.lies_within(kept)
            for r in file.pieces
        )
        return Coverage(files, joined_ranges(gone), tuple(missing))

    def _taken_apart(
        self, path: str, rows: int, known: Mapping[str, Covered]
    ) -> tuple[Covered | None, list[str]]:
        """The pieces that a file was merged from, and those of its parts that no piece has."""
        leaves = self._leaves(path, known)
        pieces = [known[leaf] for leaf in leaves if leaf in known]
        rest = [leaf for leaf in leaves if leaf not in known]
        found = sum(piece.rows for piece in pieces)
        # A deletion, or a day part of which becomes cold, leaves fewer rows in a file than those had
        # that it was made from, and names them, too.
        same = found + sum(self._rows_in(leaf) for leaf in rest) == rows
        if not pieces or not same or not all(self._lake.has(SILVER_EVENTS, leaf) for leaf in rest):
            return None, [path]
        return Covered(found, joined_ranges(r for piece in pieces for r in piece.pieces)), rest

    def _leaves(self, path: str, known: Mapping[str, Covered]) -> list[str]:
        if path in known:
            return [path]
        origins = self._origins(path)
        if not origins:
            return [path]
        return [leaf for origin in origins for leaf in self._leaves(origin, known)]

    def _read_origins(self, path: str) -> tuple[str, ...]:
        if path.rsplit("/", 1)[-1].startswith(LANDED):
            return ()
        return tuple(origin_of(self._lake, SILVER_EVENTS, path) or ())

    def _read_rows(self, path: str) -> int:
        """Rows of a file that is no longer live; of one that is gone a number that fits no sum."""
        rows = rows_in(self._lake.uri_of(SILVER_EVENTS), path)
        return _GONE if rows is None else rows


def newest_first(snapshot: Snapshot) -> dict[str, int]:
    """Path relative to the table → rows, of the live files; what came last comes first, though old
    files are written anew for a tier.
    """
    if not snapshot.paths:
        return {}
    columns = (snapshot.actions[name].to_pylist() for name in _OF_A_FILE)
    files = sorted(zip(*columns, strict=True), reverse=True)
    return {path: rows or 0 for *_, path, rows in files}
