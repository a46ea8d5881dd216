"""Retention floors: what is older was deleted, and does not come in again.

The history is append-only and a floor never moves back, so what a floor says of a moment stays true.
An event is judged by the floor in force when it was received (a stranger's: at its Kafka timestamp).
One without a timestamp of its own is never too old: what was deleted of those has tombstones.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import accumulate
from typing import NamedTuple, Protocol

from dc_platform.contracts.envelope import Envelope, Rejected
from dc_platform.contracts.reasons import Reason

# A policy, or a floor, of every event type that has none of its own.
EVERY_TYPE = "*"


class Floor(NamedTuple):
    """Events of `data_type` before `floor_ms` are deleted; in force from `from_ms` on (epoch ms).

    One of every type leaves out the types `excepted`, which had a policy of their own then.
    """

    tenant_id: str
    data_type: str
    excepted: frozenset[str]
    floor_ms: int
    from_ms: int


class KnownFloors(Protocol):
    """The floors as an append-only history."""

    def of(self, tenant_id: str, event_type: str, at_ms: int) -> int | None:
        """Before which time events of the type are too old at `at_ms`; None: never."""
        ...

    def highest(self, at_ms: int) -> int | None:
        """No event from that time on is too old at `at_ms`; None: none is at all."""
        ...


class _Line(NamedTuple):
    """Floors of one kind by the time from which they are in force, each with the highest until then."""

    data_type: str
    excepted: frozenset[str]
    from_ms: list[int]
    floors: list[int]

    def at(self, at_ms: int) -> int | None:
        number = bisect_right(self.from_ms, at_ms)
        return self.floors[number - 1] if number else None

    def has(self, event_type: str) -> bool:
        if self.data_type == EVERY_TYPE:
            return event_type not in self.excepted
        return event_type == self.data_type


class Floors:
    """All floors up to some moment."""

    def __init__(self, floors: Iterable[Floor] = ()) -> None:
        kinds: defaultdict[tuple[str, str, frozenset[str]], list[Floor]] = defaultdict(list)
        for floor in sorted(floors, key=lambda floor: floor.from_ms):
            kinds[floor[:3]].append(floor)
        self._lines: defaultdict[str, list[_Line]] = defaultdict(list)
        for (tenant_id, data_type, excepted), members in kinds.items():
            line = _Line(
                data_type,
                excepted,
                [floor.from_ms for floor in members],
                list(accumulate((floor.floor_ms for floor in members), max)),
            )
            self._lines[tenant_id].append(line)

    def of(self, tenant_id: str, event_type: str, at_ms: int) -> int | None:
        """As `KnownFloors` says."""
        if not self._lines:
            return None
        lines = self._lines.get(tenant_id, ())
        found = (line.at(at_ms) for line in lines if line.has(event_type))
        return max((floor for floor in found if floor is not None), default=None)

    def highest(self, at_ms: int) -> int | None:
        """As `KnownFloors` says."""
        found = (line.at(at_ms) for lines in self._lines.values() for line in lines)
        return max((floor for floor in found if floor is not None), default=None)

    def in_force(self, at_ms: int) -> list[Floor]:
        """The highest floor of each kind at `at_ms`."""
        return [
            Floor(tenant_id, line.data_type, line.excepted, floor, line.from_ms[0])
            for tenant_id, lines in self._lines.items()
            for line in lines
            if (floor := line.at(at_ms)) is not None
        ]


NO_FLOORS = Floors()


def too_old(event: Envelope, floors: KnownFloors, *, tenant_id: str, at_ms: int) -> Rejected | None:
    """Why an event that was received at `at_ms` is not let in again, if it is not."""
    if event.timestamp is None:
        return None
    floor = floors.of(tenant_id, event.eventType, at_ms)
    if floor is None or event.timestamp >= floor:
        return None
    kept = datetime.fromtimestamp(floor / 1000, UTC).isoformat(timespec="seconds")
    return Rejected(
        Reason.TOO_OLD,
        f"timestamp is {(floor - event.timestamp) // 1000} s before {kept}, from when on events of"
        " this type are kept",
    )
