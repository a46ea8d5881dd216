"""Footers of data files: what they say of their columns and row groups, kept while somebody asks.

Data files never change, so a footer is read once: of a file of a million rows it is 120 KB, and takes a
millisecond.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

# Of all that are kept, as they lie in the files: eight times as much in memory.
_MOST_BYTES = 16 * 2**20
# Where a row group does not say between which values its rows are. No text in UTF-8 has a byte 0xFF.
_ANY: dict[type, tuple[int | bytes, int | bytes]] = {
    np.int64: (-(2**63), 2**63 - 1),
    object: (b"", b"\xff"),
}

Rows = npt.NDArray[np.int64]
# Least and greatest of each row group: of int64, or of bytes.
_Bounds = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class Footer:
    """What a file says of itself. Thread-safe."""

    def __init__(self, metadata: pq.FileMetaData) -> None:
        self.metadata = metadata
        self.columns = frozenset(metadata.schema.to_arrow_schema().names)
        self._bounds: dict[str, _Bounds] = {}

    @cached_property
    def starts(self) -> Rows:
        """The number of each row group's first row, and how many rows there are."""
        groups = range(self.metadata.num_row_groups)
        sizes = [self.metadata.row_group(n).num_rows for n in groups]
        return np.cumsum([0, *sizes])

    def groups_with(self, **values: int | bytes) -> list[int]:
        """The row groups that may have a row with these values, by column; texts as UTF-8, times in
        epoch microseconds.
        """
        may = np.ones(self.metadata.num_row_groups, bool)
        for column, value in values.items():
            # Bytes as objects: numpy's own end where only zeros follow.
            kind = object if isinstance(value, bytes) else np.int64
            low, high = self._bounds_of(column, kind)
            told = np.array(value, kind)
            may &= (low <= told) & (told <= high)
        return [int(group) for group in np.flatnonzero(may)]

    def _bounds_of(self, column: str, kind: type) -> _Bounds:
        found = self._bounds.get(column)
        if found is None:
            number = self.metadata.schema.names.index(column)
            groups = range(self.metadata.num_row_groups)
            told = [self.metadata.row_group(n).column(number).statistics for n in groups]
            bounds = [
                (each.min_raw, each.max_raw) if each and each.has_min_max else _ANY[kind]
                for each in told
            ]
            low, high = zip(*bounds, strict=True) if bounds else ((), ())
            found = self._bounds[column] = (np.array(low, kind), np.array(high, kind))
        return found


class Footers:
    """Footers by the absolute paths of their files, those that were asked for last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, Footer] = {}

    def of(self, path: str) -> Footer:
        """The footer of a file. Raises OSError and pa.ArrowException."""
        with self._lock:
            found = self._kept.pop(path, None)
            if found is not None:
                # The one that was asked for last comes last.
                self._kept[path] = found
                return found
        found = Footer(pq.read_metadata(path))
        with self._lock:
            self._kept[path] = found
            size = sum(footer.metadata.serialized_size for footer in self._kept.values())
            while size > _MOST_BYTES and len(self._kept) > 1:
                size -= self._kept.pop(next(iter(self._kept))).metadata.serialized_size
        return found

    def keep(self, paths: Collection[str]) -> None:
        """Forget the others: they say something of what was deleted."""
        with self._lock:
            self._kept = {path: each for path, each in self._kept.items() if path in paths}
