"""The data files of a landing: written in threads, and none forgotten that no commit was tried with.

A landing that fails before its commits leaves some, and is tried again for minutes: a full disk would
be filled with them as soon as it has room. Once a commit was tried with a file, the log alone can tell
whether it is live, so it is no longer one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, wait
from datetime import datetime
from typing import Any, TypeVar

import pyarrow as pa

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, TableSpec
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.parquet import FAST_LEVEL, DataFile, write_file
from dc_platform.lake.store import Lake
from dc_platform.landing.batch import bronze_rows, silver_rows
from dc_platform.landing.ordered import Ordered
from dc_platform.points import Point, Reached

T = TypeVar("T")


class LandingFiles:
    """Files of the tables that one run lands in; each is written by one thread."""

    def __init__(
        self, lake: Lake, identities: IdentityFiles, threads: Executor, reached: Reached
    ) -> None:
        self._lake = lake
        self._identities = identities
        self._threads = threads
        self._reached = reached
        self._unused: dict[str, TableSpec] = {}
        self._writing: list[Future[Any]] = []

    def begin_bronze(self, rows: pa.Table, at: datetime) -> Future[list[DataFile]]:
        """Begin to write judged rows; no file for none."""

        def work() -> list[DataFile]:
            return [self.write(BRONZE_EVENTS, bronze_rows(rows, at), at)] if len(rows) else []

        return self._begin(work)

    def begin_silver(self, rows: pa.Table, found: Ordered, at: datetime) -> Future[DataFile | None]:
        """Begin `silver`."""
        return self._begin(lambda: self.silver(rows, found, at))

    def _begin(self, work: Callable[[], T]) -> Future[T]:
        writing = self._threads.submit(work)
        self._writing.append(writing)
        return writing

    def silver(self, rows: pa.Table, found: Ordered, at: datetime) -> DataFile | None:
        """Write rows, and beside them their identities; None for none."""
        if not len(rows):
            return None
        file = self.write(SILVER_EVENTS, silver_rows(rows, at), at)
        self._reached(Point.SILVER_FILE)
        self._identities.write(file.path, *found.keys, found.scopes)
        self._reached(Point.IDENTITY_FILE)
        return file

    def write(self, spec: TableSpec, rows: pa.Table, at: datetime) -> DataFile:
        """Write rows of a table, which were processed `at`."""
        file = write_file(self._lake, spec, rows, partition=at.date(), level=FAST_LEVEL)
        self._unused[file.path] = spec
        return file

    def use(self, files: Iterable[DataFile]) -> None:
        """A commit is tried with these."""
        for file in files:
            self._unused.pop(file.path, None)

    def drop(self, spec: TableSpec, path: str) -> None:
        """Delete a file that is certainly not live, with the identities that were kept of it."""
        self._lake.remove(spec, path)
        if spec is SILVER_EVENTS:
            self._identities.remove(path)

    def drop_unused(self) -> None:
        """Delete those that no commit was tried with, also those that are still being written."""
        wait(self._writing)
        self._writing.clear()
        while self._unused:
            path, spec = self._unused.popitem()
            self.drop(spec, path)
