"""How much of Kafka the tail holds.

A consumer's poll of a dead broker is as empty as that of an idle one. So Kafka is asked for the ends
of its partitions again and again: what it had when it was asked is held as soon as the tail's
positions have reached those ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from dc_platform.broker.records import Record, RecordReader, Records
from dc_platform.errors import BrokerUnavailableError

log = logging.getLogger(__name__)

_ASK_SECONDS = 0.5
_ANSWER_MS = 1000
# Older knowledge is none: Kafka may have taken more than the tail holds.
_FRESH_SECONDS = 2.0
# A consumer finds a broker that is back by itself, but not one at another address.
_GIVE_UP_SECONDS = 30.0


class Progress:
    """Of one topic. Used by the tail's thread; the properties by any."""

    def __init__(self) -> None:
        self._next_ask = 0.0
        self._answered_at = float("-inf")
        self._goal: Mapping[int, int] = {}
        self._goal_at = 0.0
        self._goal_ms = 0
        self._reached = True
        self._held_at = float("-inf")
        self._read_ms: dict[int, int] = {}
        self._silent_since = time.monotonic()
        # Epoch milliseconds: all that Kafka appended until then is held.
        self.up_to_ms = 0

    @property
    def kafka_answers(self) -> bool:
        """Whether Kafka answered lately."""
        return time.monotonic() - self._answered_at < _FRESH_SECONDS

    @property
    def holds_all(self) -> bool:
        """Whether the tail holds what Kafka had a moment ago."""
        return time.monotonic() - self._held_at < _FRESH_SECONDS

    @property
    def reached(self) -> bool:
        """Whether the tail stands at the ends that Kafka named last."""
        return self._reached

    def ask(self, reader: RecordReader) -> None:
        """Ask for the ends, twice a second. Raises when nobody has answered for long."""
        now, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        if now < self._next_ask:
            return
        try:
            ends = reader.end_offsets(_ANSWER_MS)
        except BrokerUnavailableError as error:
            self._next_ask = time.monotonic()
            if now - self._silent_since > _GIVE_UP_SECONDS:
                raise
            if self.kafka_answers:
                log.warning("%s", error)
            return
        self._silent_since = self._answered_at = time.monotonic()
        self._next_ask = now + _ASK_SECONDS
        if self._reached:
            self._goal, self._goal_at, self._goal_ms = ends, now, now_ms
            self._reached = False

    def read(self, records: Sequence[Record]) -> None:
        """Note records that the tail has taken."""
        columns = Records.of(records)
        times = zip(columns.partitions.tolist(), columns.timestamps_ms.tolist(), strict=True)
        self._read_ms.update(times)

    def follow(self, positions: Mapping[int, int]) -> None:
        """Compare where the tail stands with what Kafka has."""
        if self._reached:
            return
        behind = [p for p, end in self._goal.items() if positions.get(p, 0) < end]
        # More records may have the time of the last one that was read.
        held_ms = min((self._read_ms.get(p, 1) - 1 for p in behind), default=self._goal_ms)
        self.up_to_ms = max(self.up_to_ms, min(held_ms, self._goal_ms))
        if not behind:
            self._reached, self._held_at = True, self._goal_at
