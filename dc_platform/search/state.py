"""What an index says of itself: which files of silver it covers.

It is a document of the index, replaced in the same commit as those that it speaks of, so it is true of
them after a crash anywhere. Each data file that was indexed is a piece with a number, which its
documents carry. When compaction makes one file of several, the pieces stay and the file that they lie
in is another: nothing is indexed again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

# First and last number, both included.
Range = tuple[int, int]


class Covered(msgspec.Struct, frozen=True):
    """A live file all of whose rows are indexed, in these pieces."""

    rows: int
    pieces: tuple[Range, ...]

    def lies_within(self, ranges: Iterable[Range]) -> bool:
        """Whether its pieces are among these."""
        return all(any(a <= x and y <= b for a, b in ranges) for x, y in self.pieces)


class State(msgspec.Struct, frozen=True):
    """`files` are paths relative to the table. `version` is the newest version of silver of which
    everything is indexed, -1 before the first; `table` is the id of the table. `unreadable` rows lie in
    files that the last build could not read. `removed_ms` is when the first of it was removed since the
    index was made (0: nothing was).
    """

    table: str
    version: int = -1
    built_ms: int = 0
    next_piece: int = 1
    unreadable: int = 0
    removed_ms: int = 0
    files: dict[str, Covered] = {}

    @property
    def rows(self) -> int:
        """Rows of the files."""
        return sum(file.rows for file in self.files.values())

    def encoded(self) -> bytes:
        """As JSON; `decoded` reads it."""
        return msgspec.json.encode(self)

    @classmethod
    def decoded(cls, content: bytes) -> State:
        """A state from its JSON."""
        return msgspec.json.decode(content, type=cls)


@dataclass(frozen=True)
class Missing:
    """A file to be read, whose rows lie in the live file `within`: the file itself, or one that was
    merged from it; relative to the table.
    """

    path: str
    within: str


@dataclass(frozen=True)
class Coverage:
    """An index beside a version of silver. `files` are the live files that it covers, some of them in
    part, `gone` the pieces whose rows are no longer in silver, `missing` what is not indexed, newest
    first.
    """

    files: Mapping[str, Covered]
    gone: tuple[Range, ...]
    missing: tuple[Missing, ...]
    # First numbers of pieces, ascending, and the live file of each range.
    _starts: list[int] = field(init=False, default_factory=list)
    _homes: list[tuple[int, str]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        ranges = sorted((a, b, path) for path, file in self.files.items() for a, b in file.pieces)
        self._starts.extend(a for a, _, _ in ranges)
        self._homes.extend((b, path) for _, b, path in ranges)

    def home_of(self, piece: int) -> str | None:
        """The live file that a piece lies in."""
        at = bisect_right(self._starts, piece) - 1
        if at < 0 or piece > self._homes[at][0]:
            return None
        return self._homes[at][1]


def joined_ranges(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same numbers in as few ranges as there can be."""
    found: list[list[int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1][1] = max(found[-1][1], last)
        else:
            found.append([first, last])
    return tuple((first, last) for first, last in found)


def pieces_in(ranges: Iterable[Range]) -> int:
    """How many pieces that is."""
    return sum(last - first + 1 for first, last in ranges)
