"""Candidate events of strangers' records, side by side in one buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from dc_platform.broker.records import Records
from dc_platform.decode.blocks import cuts
from dc_platform.decode.columns import Indices
from dc_platform.decode.prefixes import slices
from dc_platform.decode.strangers import JSON_SPACE, Line, lines_of

_NEWLINE = b"\n"
_SPACE = np.isin(np.arange(256), list(JSON_SPACE))


class Texts(NamedTuple):
    """Candidate events: the number of each one's record, its position in it, and where it stands in
    a buffer, in which a line end comes after each but the last.
    """

    rows: Indices
    positions: Indices
    buffer: bytes
    starts: Indices
    ends: Indices

    def at(self, places: Indices) -> Texts:
        """Those at `places`."""
        if len(places) == len(self.rows):
            return self
        raws = self.raws(places)
        return _side_by_side(self.rows[places], self.positions[places], raws)

    def raws(self, places: Indices) -> list[bytes]:
        """The bytes of those at `places`."""
        cuts_ = zip(self.starts[places].tolist(), self.ends[places].tolist(), strict=True)
        return [self.buffer[start:end] for start, end in cuts_]

    def lines(self, places: Indices) -> Iterator[Line]:
        """Those at `places`, one by one."""
        rows, positions = self.rows[places].tolist(), self.positions[places].tolist()
        return map(Line, rows, positions, self.raws(places))

    def column(self) -> pa.Array:
        """Their bytes as a column."""
        return slices(np.frombuffer(self.buffer, np.uint8), self.starts, self.ends)


def texts_of(records: Records) -> Texts:
    """Every candidate event of strangers' records."""
    size = len(records)
    texts = _side_by_side(np.arange(size), np.zeros(size, np.int64), records.values)
    # A record of one text without white space around it is one candidate.
    data = np.frombuffer(texts.buffer, np.uint8)
    whole = records.sizes.all() and texts.buffer.count(_NEWLINE) == size - 1
    if whole and not _SPACE[data[texts.starts]].any() and not _SPACE[data[texts.ends - 1]].any():
        return texts
    return as_texts(lines_of(records))


def as_texts(lines: Iterable[Line]) -> Texts:
    """Lines as columns."""
    listed = list(lines)
    rows = np.fromiter((line.row for line in listed), np.int64, len(listed))
    positions = np.fromiter((line.position for line in listed), np.int64, len(listed))
    return _side_by_side(rows, positions, [line.raw for line in listed])


def _side_by_side(rows: Indices, positions: Indices, raws: list[bytes]) -> Texts:
    sizes = np.fromiter(map(len, raws), np.int64, len(raws))
    ends = np.cumsum(sizes + 1) - 1
    return Texts(rows, positions, _NEWLINE.join(raws), ends - sizes, ends)


def pieces(texts: Texts, records: Records) -> Iterator[tuple[Texts, Records]]:
    """The texts in order, in pieces that are read at once, each with the records that it needs."""
    for start, stop in cuts(texts.ends - texts.starts):
        rows = texts.rows[start:stop]
        first, last = int(rows.min()), int(rows.max())
        raws = texts.raws(np.arange(start, stop))
        piece = _side_by_side(rows - first, texts.positions[start:stop], raws)
        yield piece, records[first : last + 1]
