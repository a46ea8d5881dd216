"""The rows of hits, out of the files of silver that these lie in.

A hit says in which file it is, of which source and time, and at which offset. Of a file whose rows are
in order (`lake/rewrite.py`) the statistics leave one row group of sixty then, of another one those that
landed about that time. There three columns of numbers tell the row, and only up to it payloads are
decoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.contracts.fields import QueryError
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.footers import Footer, Footers, Rows
from dc_platform.lake.store import Lake
from dc_platform.search.index import Hit
from dc_platform.serving.few_rows import FewRows, TooLargeError, Wanted

_MOST_MB = 256


class HitRows:
    """Reads the rows of hits. Thread-safe."""

    def __init__(self, lake: Lake, *, threads: int, seconds: float) -> None:
        self._root = lake.uri_of(SILVER_EVENTS)
        self._footers = lake.footers
        self._few_rows = FewRows(lake, threads=threads, seconds=seconds)

    def close(self) -> None:
        """End the threads."""
        self._few_rows.close()

    def read(self, hits: Mapping[str, Sequence[Hit]], names: Sequence[str]) -> pa.Table:
        """The rows of hits by file (relative to the table), with silver's columns, of which those that
        are not among `names` are null. Rows that are at the place of a hit in all but the identity may
        be among them, and that of a hit that the file has not is not.

        Raises QueryError where they are too large, QueryTimeoutError, and StoreUnavailableError where
        a file cannot be read.
        """
        try:
            wanted = [
                each
                for path, some in hits.items()
                for each in _wanted(self._footers, f"{self._root}/{path}", some)
            ]
            return self._few_rows.read(wanted, names, most_bytes=_MOST_MB * 2**20)
        except TooLargeError:
            raise QueryError(
                f"limit: the events of this page are more than {_MOST_MB} MB; ask for fewer"
            ) from None
        except MemoryError:
            # pyarrow's is an ArrowException, too.
            raise
        except (OSError, pa.ArrowException) as error:
            raise StoreUnavailableError(
                f"a file that the search reads was replaced meanwhile, or cannot be read: {error}"
            ) from error


def _wanted(footers: Footers, path: str, hits: Iterable[Hit]) -> list[Wanted]:
    """Each row group of a file that may have some of the hits, with these."""
    footer = footers.of(path)
    groups: dict[int, list[Hit]] = {}
    for hit in hits:
        place = {"event_time": hit.time, "kafka_offset": hit.kafka_offset}
        for group in footer.groups_with(**place, source_id=hit.source_id.encode()):
            groups.setdefault(group, []).append(hit)
    return [Wanted(path, partial(_rows_of, group, some)) for group, some in groups.items()]


def _rows_of(
    group: int, hits: Sequence[Hit], file: pq.ParquetFile, _footer: Footer
) -> Iterator[tuple[int, Rows]]:
    """The rows of a row group that are at the places of hits."""
    values = {
        "event_time": [hit.time for hit in hits],
        "kafka_offset": [hit.kafka_offset for hit in hits],
        "kafka_index": [hit.kafka_index for hit in hits],
    }
    found = file.read_row_group(group, columns=list(values), use_threads=False)
    at = np.ones(len(found), bool)
    for column, wanted in values.items():
        at &= np.isin(found[column].cast(pa.int64()).to_numpy(), wanted)
    yield group, np.flatnonzero(at)
