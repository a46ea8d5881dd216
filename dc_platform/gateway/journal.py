"""The journal of acknowledgements: a line per block, on this machine before the client is answered.

A line is one write and no fsync: it outlives a `kill -9` of the gateway, not the loss of its machine
(then the block's own header counts it). Lines stand in segments; `take` ends the one that is written
and hands it to whoever ships it, `shipped` deletes it. Segments that ended starts left behind are
handed out too. Whoever writes or ships a segment has it locked until it is deleted: gateways may share
an id and a directory, and none takes what a living one will ship. A journal that cannot be written
(disk full, too much waiting) costs no event and no answer: its lines wait in memory, up to a limit, and
past it they are counted and left to the headers.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

# A line has some 200 bytes: a million blocks may wait to be shipped.
_LIMIT_BYTES = 256 * 2**20
_MEMORY_BYTES = 8 * 2**20
# A segment that nobody could ship is added to until it has so many bytes.
_SEGMENT_BYTES = 4 * 2**20
# Leftovers that are open at once: a gateway that failed to start a thousand times left as many, and a
# process may often have 1,024 files.
_LEFTOVERS = 64


class Segment(NamedTuple):
    """Lines to be shipped: a file's, or those that are only in memory."""

    path: Path | None
    lines: bytes = b""

    def pieces(self, size: int) -> Iterator[bytes]:
        """Whole lines of about `size` bytes together. One that was cut off is left out."""
        if self.path is None:
            yield self.lines
            return
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            # Waiting for it would let nothing behind it be shipped.
            log.warning("%s was deleted by somebody else: nothing of it is left to ship", self.path)
            return
        with file:
            while lines := file.readlines(size):
                if not lines[-1].endswith(b"\n"):
                    log.warning("the last line of %s was cut off", self.path)
                    lines.pop()
                if lines:
                    yield b"".join(lines)


class Journal:
    """The journal of one start of a gateway. All calls on one thread."""

    def __init__(
        self,
        directory: Path,
        boot: str,
        *,
        limit_bytes: int = _LIMIT_BYTES,
        memory_bytes: int = _MEMORY_BYTES,
    ) -> None:
        self._directory = directory
        self._boot = boot
        self._limit = limit_bytes
        self._memory_limit = memory_bytes
        self._number = 0
        self._file: int | None = None
        self._path: Path | None = None
        self._size = 0
        # Ended and not yet shipped: path → size.
        self._waiting: dict[Path, int] = {}
        # Of ended starts, and not yet shipped; in the order in which they are.
        self._left: list[Path] = []
        # Open, for as long as their locks are needed.
        self._locks: dict[Path, int] = {}
        self._memory: list[bytes] = []
        self._memory_size = 0
        self._failing = False
        # Blocks without a line anywhere: their headers are all that counts them.
        self.lost = 0

    def write(self, line: bytes) -> None:
        """Keep a line; never raises. 1.5 µs, of the 6 that an acknowledgement costs."""
        if self._file is None or self._size + len(line) > self._room():
            self._write_slowly(line)
            return
        try:
            written = os.write(self._file, line)
        except OSError as error:
            self._keep(line, error)
            return
        self._size += written
        if written < len(line):
            self._cut(written)
            self._keep(line, OSError("the disk is full"))

    def _room(self) -> int:
        return self._limit - sum(self._waiting.values())

    def _write_slowly(self, line: bytes) -> None:
        """Open a segment first, if there may be one more."""
        if self._size + len(line) > self._room():
            self._keep(line, OSError(f"{self._limit} bytes wait to be shipped"))
            return
        try:
            self._open()
        except OSError as error:
            self._keep(line, error)
            return
        self.write(line)

    def _open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._number += 1
        path = self._directory / f"acks-{self._boot}-{self._number:06d}.ndjson"
        file = _locked(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if file is None:
            raise OSError(f"{path} was taken for a leftover")
        self._file, self._path = file, path
        self._size = 0

    def _cut(self, written: int) -> None:
        """Take back the piece of a line that still fitted."""
        assert self._file is not None
        with suppress(OSError):
            os.ftruncate(self._file, self._size - written)
            self._size -= written

    def _keep(self, line: bytes, why: OSError) -> None:
        if not self._failing:
            log.error("the journal %s cannot be written (%s): events go on", self._directory, why)
            self._failing = True
        if self._memory_size + len(line) > self._memory_limit:
            self.lost += 1
            return
        self._memory.append(line)
        self._memory_size += len(line)

    def take(self) -> list[Segment]:
        """What is to be shipped now, oldest first; the next line opens a new segment."""
        if not self._waiting or self._size > _SEGMENT_BYTES:
            self._end_segment()
        segments = [Segment(path) for path in sorted(self._waiting)]
        if self._memory:
            segments.append(Segment(None, b"".join(self._memory)))
            self._memory, self._memory_size = [], 0
            self._failing = False
        return segments

    def shipped(self, segment: Segment) -> None:
        """Forget a segment: Kafka has it."""
        if segment.path is None:
            return
        self._waiting.pop(segment.path, None)
        if segment.path in self._left:
            self._left.remove(segment.path)
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            # Its lock stays: whoever finds it free would ship it again, each minute.
            log.warning("%s is shipped, and cannot be deleted: %s", segment.path, error)
            return
        self._unlock(segment.path)

    def not_shipped(self, segment: Segment) -> None:
        """Take a segment back: it comes again with the next `take`."""
        if segment.path is None:
            self._memory.insert(0, segment.lines)
            self._memory_size += len(segment.lines)

    def close(self) -> None:
        """End the segment that is written; what was not shipped is left to the next start."""
        self._end_segment()
        for path in list(self._locks):
            self._unlock(path)

    def _end_segment(self) -> None:
        if self._file is None or self._path is None:
            return
        self._waiting[self._path] = self._size
        self._locks[self._path] = self._file
        self._file = self._path = None
        self._size = 0

    def _unlock(self, path: Path) -> None:
        file = self._locks.pop(path, None)
        if file is not None:
            with suppress(OSError):
                os.close(file)

    def leftovers(self) -> list[Segment]:
        """Segments of starts that have ended, oldest first: some of them, the same until they are
        shipped, then others, until there are none.
        """
        if not self._left:
            self._claim()
        return [Segment(path) for path in self._left]

    def _claim(self) -> None:
        others = [
            path
            for path in self._directory.glob("acks-*.ndjson")
            if not path.name.startswith(f"acks-{self._boot}-") and path not in self._locks
        ]
        for path in sorted(others, key=_modified):
            if len(self._left) == _LEFTOVERS:
                return
            with suppress(OSError):
                if (file := _locked(path, os.O_RDONLY)) is not None:
                    self._locks[path] = file
                    self._left.append(path)


def _locked(path: Path, flags: int) -> int | None:
    """The file opened and locked; None when somebody else has it, or has deleted it just now."""
    file = os.open(path, flags | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_nlink:
            return file
    except BlockingIOError:
        pass
    except OSError:
        os.close(file)
        raise
    os.close(file)
    return None


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
