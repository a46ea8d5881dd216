"""DuckDB instances that read files below some directories, and reach nothing else."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import duckdb
import psutil

from dc_platform.lake.sql import sql_list

_NUMBERS = count(1)
_SPILLED = re.compile(r"[a-z]+-([0-9]+)-[0-9]+")


@dataclass(frozen=True)
class Bounds:
    """What an instance may take: threads, MB of memory, MB of disk in `temporary` to spill to, which
    DuckDB makes and removes, and which no other instance has; and the `directories` that it may read.
    """

    threads: int
    memory_mb: int
    temporary: Path
    temporary_mb: int
    directories: Sequence[str]


def bounded(bounds: Bounds) -> duckdb.DuckDBPyConnection:
    """A new instance, whose settings `lock` has to lock before anybody else uses it."""
    _without_pandas()
    return duckdb.connect(
        config={
            "threads": bounds.threads,
            "memory_limit": f"{bounds.memory_mb}MB",
            "temp_directory": str(bounds.temporary),
            "python_enable_replacements": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )


def lock(instance: duckdb.DuckDBPyConnection, bounds: Bounds) -> None:
    """From now on it reaches nothing but its directories, and no setting changes."""
    for statement in (
        "set global TimeZone = 'UTC'",
        # Among the options of `connect` it has no effect (DuckDB 1.5).
        f"set max_temp_directory_size = '{bounds.temporary_mb}MB'",
        f"set allowed_directories = {sql_list(bounds.directories)}",
        "set enable_external_access = false",
        # Of the instance: cursors do not have what a connection has set.
        "set global parquet_metadata_cache = true",
        "set lock_configuration = true",
    ):
        instance.execute(statement)


def is_the_end(error: duckdb.Error) -> bool:
    """Whether DuckDB answers nothing any more: after an error of its own, and after a checkpoint of the
    attached database for which there was no memory ("has been invalidated", an IO error).
    """
    if isinstance(error, duckdb.IOException):
        return "has been invalidated" in str(error)
    return isinstance(error, duckdb.InternalException | duckdb.FatalException)


def spill_name(kind: str) -> str:
    """A name for the directory of an instance. Two that spill to one read each other's blocks."""
    return f"{kind}-{os.getpid()}-{next(_NUMBERS)}"


def remove_spilled(directory: Path) -> None:
    """Remove what instances of processes that are no more have left."""
    for left in directory.iterdir():
        found = _SPILLED.fullmatch(left.name)
        if found is not None and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(left, ignore_errors=True)


class _NoPandas(MetaPathFinder):
    """Says at once that there is no pandas. DuckDB imports it twice for each parameter of a query; to
    look for it in vain took 0.05 ms each time, in which all threads waited for each other. None in
    `sys.modules` would be quicker, but pyarrow takes that for a module. `importlib.util.find_spec`
    raises this, too, in place of giving None.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=fullname)


@cache
def _without_pandas() -> None:
    if find_spec("pandas") is None:
        sys.meta_path.insert(0, _NoPandas())
