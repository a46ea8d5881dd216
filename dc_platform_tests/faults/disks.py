"""A file system that is small and real: a tmpfs, mounted for the length of a test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class SmallDisk:
    """`directory` is on it. `fill` leaves so much room, `free` gives back all that `fill` took."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    @property
    def room(self) -> int:
        """Bytes that are left."""
        left = os.statvfs(self.directory)
        return left.f_bavail * left.f_frsize

    def fill(self, *, leave: int = 0) -> None:
        # Others write meanwhile: then it is full before all of this is in.
        with suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            file.write(b"\0" * max(0, self.room - leave))

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Skips where mounting is not permitted: it takes root on Linux."""
    directory.mkdir(parents=True)
    options = f"size={megabytes}m"
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system: mounting a tmpfs takes root on Linux ({error})")
    try:
        yield SmallDisk(directory)
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=False)
