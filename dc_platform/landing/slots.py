"""Which Kafka partitions a landing slot lands: every N-th.

So a partition that is added goes to one slot, and no other partition moves.
"""

from __future__ import annotations

from typing import NamedTuple

from dc_platform.errors import ConfigurationError


class Slot(NamedTuple):
    """Slot `number` (from 0) of `of` that share a topic."""

    number: int = 0
    of: int = 1

    def __str__(self) -> str:
        return f"slot {self.number} of {self.of}"

    @property
    def compacts(self) -> bool:
        """Whether its writer compacts the tables, of all slots' files: one does."""
        return self.number == 0

    def has(self, partition: int) -> bool:
        """Whether the partition is this slot's."""
        return partition % self.of == self.number

    def partitions(self, count: int) -> list[int]:
        """This slot's partitions of a topic that has `count`; raises when there is none."""
        if self.number >= self.of:
            raise ConfigurationError(f"there is no {self}: the first is 0 (DCP_LANDING_SLOTS)")
        own = [partition for partition in range(count) if self.has(partition)]
        if not own:
            raise ConfigurationError(
                f"{self} has no partition of a topic with {count}: set DCP_LANDING_SLOTS to"
                f" {count} at most, or add partitions"
            )
        return own
