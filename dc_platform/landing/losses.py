"""What Kafka deleted before it landed: on record before anything of its batch is, and nothing else.

Bronze may have what Kafka no longer has: of a run that crashed before silver, or of one that overslept
with the records in its memory. Whoever sees that ends, and its successor lands it from bronze. The
other way round, what one run has put on record as lost is not landed by another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import pyarrow as pa

from dc_platform.errors import FencedError
from dc_platform.lake.gaps import BEFORE_FIRST, EXPIRED, KnownGap, known_gaps, record_gaps
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import Batch
from dc_platform.points import Point, Reached

Offsets = Mapping[int, int | None]


class Losses:
    """The losses of one topic, as one run meets them."""

    def __init__(self, lake: Lake, topic_id: str, reached: Reached) -> None:
        self._lake = lake
        self._topic_id = topic_id
        self._reached = reached
        # Of partitions that never landed: where Kafka began when they were met.
        self._met_at: dict[int, int] = {}

    def met(self, partition: int, offset: int) -> None:
        """A partition of which nothing has landed; Kafka has it from `offset` on."""
        self._met_at[partition] = offset

    def landed(self, partitions: Iterable[int]) -> None:
        """A batch of them is in silver."""
        for partition in partitions:
            self._met_at.pop(partition, None)

    def of(self, batch: Batch) -> list[KnownGap]:
        """What the batch lacks, and what Kafka no longer had when its partitions were met."""
        gaps = [KnownGap(self._topic_id, *gap, EXPIRED) for gap in batch.gaps]
        return gaps + [
            KnownGap(self._topic_id, partition, 0, self._met_at[partition], BEFORE_FIRST)
            for partition in batch.ranges
            if self._met_at.get(partition)
        ]

    def record(self, batch: Batch, bronze: Offsets, at: datetime) -> None:
        """Before bronze, whose range covers the gap: after a crash in between nobody would know."""
        self.check(batch, bronze)
        self._reached(Point.BEFORE_GAPS)
        record_gaps(self._lake, self.of(batch), at)
        self._reached(Point.GAPS_RECORDED)

    def check(self, batch: Batch, bronze: Offsets) -> None:
        """Raises FencedError when bronze (its next offsets) has some of what the batch lacks."""
        for _, partition, start, _, _ in self.of(batch):
            if (bronze[partition] or 0) > start:
                raise FencedError(
                    f"bronze has partition {partition} up to {bronze[partition]}, Kafka no longer"
                    f" has what begins at {start}: the next run lands it from bronze"
                )

    def check_given_up(self, rows: pa.Table) -> None:
        """Bronze has the `rows` that lie below its offsets, but for what is on record as lost.

        Raises FencedError when there are such.
        """
        partitions, offsets = (rows[n].to_numpy() for n in ("kafka_partition", "kafka_offset"))
        for topic_id, partition, start, end, _ in known_gaps(self._lake):
            within = (partitions == partition) & (offsets >= start) & (offsets < end)
            if topic_id == self._topic_id and within.any():
                raise FencedError(
                    f"partition {partition}: another run found that Kafka had deleted {start} to"
                    f" {end - 1}, and went on; it lands the rest"
                )
