"""Where indexes lie: `search/` of the data directory, beside the tail and the registry.

Not in the lake: an index is a local copy that tantivy maps into memory, and the lake may be a store
elsewhere. `current.json` names the index that is searched. One that is built from scratch lies beside
it until it is whole; then the name is replaced, and the old one deleted.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from dc_platform.errors import CommitConflictError
from dc_platform.search.analysis import ANALYSIS
from dc_platform.search.index import DamagedIndexError


class Current(msgspec.Struct, frozen=True):
    """The content of `current.json`."""

    directory: str
    analysis: int


class Home:
    """The directory of a platform's indexes."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir.absolute() / "search"

    def current(self) -> Path | None:
        """The index that is searched; None when there is none, or one of another analysis."""
        try:
            named = msgspec.json.decode((self.root / "current.json").read_bytes(), type=Current)
        except (OSError, msgspec.MsgspecError):
            return None
        return self.root / named.directory if named.analysis == ANALYSIS else None

    def new(self) -> Path:
        """A directory for an index that is not searched yet."""
        return self.root / f"index-{uuid.uuid4().hex[:12]}"

    def put(self, directory: Path) -> None:
        """Make this the index that is searched; the others are deleted."""
        beside = self.root / "current.json.new"
        with beside.open("wb") as file:
            file.write(msgspec.json.encode(Current(directory.name, ANALYSIS)))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.root / "current.json")
        self.tidy()

    def tidy(self) -> None:
        """Delete what builds that never ended have left. Under the lock."""
        kept = self.current()
        for found in self.root.glob("index-*"):
            if found != kept:
                shutil.rmtree(found, ignore_errors=True)

    @property
    def bytes(self) -> int:
        """Size of the index that is searched."""
        directory = self.current()
        if directory is None:
            return 0
        total = 0
        for file in directory.glob("*"):
            try:
                total += file.stat().st_size
            except FileNotFoundError:
                # Merged away since it was listed.
                continue
        return total

    @contextmanager
    def building(self) -> Iterator[None]:
        """One build at a time; the lock is gone with the process. Raises CommitConflictError."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / "lock")
        try:
            # Longer than it takes the sensor to look whether a build is at work.
            lock.acquire(timeout=1)
        except Timeout:
            raise CommitConflictError("another build of the index is at work; try again") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def is_building(self) -> bool:
        """Whether a build is at work."""
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / "lock").acquire(timeout=0):
                return False
        except Timeout:
            return True


def dead_in(directory: Path) -> int:
    """Documents that were removed from an index and whose words are still in its files: tantivy writes
    them anew when it merges them with others, and those of many documents hardly ever.
    """
    try:
        meta = msgspec.json.decode((directory / "meta.json").read_bytes(), type=_Meta)
    except (OSError, msgspec.MsgspecError) as error:
        raise DamagedIndexError(f"the index in {directory} cannot be read: {error}") from error
    return sum(s.deletes.num_deleted_docs for s in meta.segments if s.deletes is not None)


class _Deletes(msgspec.Struct):
    num_deleted_docs: int


class _Segment(msgspec.Struct):
    deletes: _Deletes | None = None


class _Meta(msgspec.Struct):
    """Of tantivy's `meta.json` what is asked of it."""

    segments: list[_Segment]
