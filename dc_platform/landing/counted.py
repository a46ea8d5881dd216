"""What records say about themselves, added up as soon as they are polled.

The sums go into the commit beside the offsets that it covers, and the audit compares them with what
bronze has there: a record that is dropped on its way is found, which no row of bronze can tell. Only
headers are looked at, and nothing is asked of an event: 0.1 to 0.3 µs a record.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dc_platform.broker.records import Record, Records
from dc_platform.contracts import blocks

# As many different headers are remembered: most blocks of one source and size have the same.
_KNOWN = 100_000
# What may stand in a record without being an event.
_BLANK_TEXT = b" \t\r\n"
_BLANK_BLOCK = b"\n"

_CONTENT_TYPE, _VERDICT, _COUNTS = blocks.CONTENT_TYPE, blocks.VERDICT, blocks.COUNTS
_Headers = tuple[bool, bytes | None, bytes | None, bytes | None]


class Counted(NamedTuple):
    """Of a partition: records that have no count and at least one event, and the events that the
    headers of the others count. Strangers' Arrow records are in neither: they may be empty.
    """

    records: int
    events: int


class Counts:
    """The sums of the records of a batch, by partition."""

    def __init__(self) -> None:
        self._records: defaultdict[int, int] = defaultdict(int)
        self._events: defaultdict[int, int] = defaultdict(int)
        self._known: dict[_Headers, int | bytes | None] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Count records that were just polled."""
        columns = Records.of(records)
        if not columns.have_headers:
            self._add_texts(columns)
            return
        known, by_records, by_events = self._known, self._records, self._events
        for partition, _, _, headers, value in columns:
            rule: int | bytes | None = _BLANK_TEXT
            if headers:
                get = headers.get
                key = (blocks.BLOCK in headers, get(_CONTENT_TYPE), get(_VERDICT), get(_COUNTS))
                try:
                    rule = known[key]
                except KeyError:
                    if len(known) >= _KNOWN:
                        known.clear()
                    rule = known[key] = _rule(headers)
            if isinstance(rule, int):
                if value:
                    by_events[partition] += rule
            elif rule is not None and value.strip(rule):
                by_records[partition] += 1

    def _add_texts(self, records: Records) -> None:
        partitions = records.partitions
        texts = [value.strip(_BLANK_TEXT) for value in records.values]
        if not all(texts):
            partitions = partitions[[bool(text) for text in texts]]
        numbers, counts = np.unique(partitions, return_counts=True)
        for partition, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self._records[partition] += count

    def of(self, partitions: Iterable[int]) -> dict[int, Counted]:
        """The sums for partitions, also for those without records."""
        return {p: Counted(self._records[p], self._events[p]) for p in partitions}


def _rule(headers: dict[str, bytes]) -> int | bytes | None:
    """How a record is counted: by its own count, as one unless it is blank, or not at all."""
    of_events = blocks.holds_events(headers)
    if of_events or blocks.holds_rejects(headers):
        events = blocks.counted_events(headers.get(blocks.COUNTS, b""))
        if events is not None:
            return events
    if of_events:
        return _BLANK_BLOCK
    media_type = blocks.media_type(headers)
    if media_type == blocks.ARROW:
        return None
    return _BLANK_TEXT if media_type in ("", blocks.JSON, blocks.NDJSON) else b""
