"""Blocks that cost a load generator almost nothing: encoded once, with new ids and times each time.

A block of 1,000 canonical lines is filled in 0.5 ms; encoding it anew takes 10.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dc_platform.bench import workload
from dc_platform.bench.workload import Event

_ID = b'{"eventId":"'
_TIME = b'"timestamp":'
_RECEIVED = b'"receivedAt":'
_TIME_DIGITS = 13
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
# Where the 32 hex digits of a UUID stand among its 36 characters.
_DIGITS = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])

Bytes = NDArray[np.uint8]


class Stencil:
    """One block of events of one source."""

    def __init__(self, events: Sequence[Event]) -> None:
        # Any time of 13 digits: it is written over.
        lines = [workload.as_line(event, 10**12) for event in events]
        self.source_id = events[0].source_id
        self.events = len(lines)
        self._bytes = np.frombuffer(b"\n".join(lines), np.uint8).copy()
        starts = np.cumsum([0, *(len(line) + 1 for line in lines[:-1])])
        self._ids = starts[:, None] + len(_ID) + np.arange(36)
        self._times = self._places(lines, starts, _TIME)
        self._received = self._places(lines, starts, _RECEIVED)

    @staticmethod
    def _places(lines: list[bytes], starts: Any, name: bytes) -> Any:
        at = starts + [line.index(name) + len(name) for line in lines]
        return at[:, None] + np.arange(_TIME_DIGITS)

    def fill(self, first: int, now_ms: int, *, salt: int) -> bytes:
        """The block with the ids of events `first`, `first` + 1, …, sent and received at `now_ms`."""
        digits = np.frombuffer(str(now_ms).encode(), np.uint8)
        self._bytes[self._times] = digits
        self._bytes[self._received] = digits
        self._bytes[self._ids] = uuids(first, self.events, salt=salt)
        return self._bytes.tobytes()


def uuids(first: int, count: int, *, salt: int) -> Bytes:
    """The UUIDs (text, one a row) of the numbers from `first` on: as random as they look to a
    compressor, and the same for the same salt and number.
    """
    numbers = np.arange(first, first + count, dtype=np.uint64)
    halves = [_mixed(numbers, salt), _mixed(numbers, salt + 1)]
    raw = np.stack(halves, axis=1).astype(">u8").view(np.uint8).reshape(count, 16)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    text = np.full((count, 36), ord("-"), np.uint8)
    text[:, _DIGITS[0::2]] = _HEX[raw >> 4]
    text[:, _DIGITS[1::2]] = _HEX[raw & 15]
    return text


def _mixed(numbers: NDArray[np.uint64], salt: int) -> NDArray[np.uint64]:
    """splitmix64: a bijection of 64-bit numbers."""
    with np.errstate(over="ignore"):
        z = (numbers + np.uint64(salt * 2**32 % 2**64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def stencils(count: int, *, now_ms: int) -> list[Stencil]:
    """Blocks of `count` different sources of the workload."""
    made = workload.generate(count * workload.BLOCK_EVENTS, now_ms=now_ms)
    return [Stencil(block) for block in made]


def new_salt() -> int:
    """Another one for each run, so that runs into one lake do not repeat ids."""
    return random.SystemRandom().getrandbits(31)
