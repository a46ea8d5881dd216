"""How much memory the process may take: what no limit of DuckDB counts ends a query, not the process.

DuckDB counts what its tables and operators hold, not the strings and lists that functions make on the
way: `repeat('x', 100000000)` for 2,048 rows is 200 GB. Past the limit of the process DuckDB's next
allocation fails, and the query ends with an error. What it had is given back within a second; DuckDB's
allocator would keep it, and leave nothing to threads and to whoever else asks the system.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress

from dc_platform.settings import Settings

# jemalloc's, which reads it when DuckDB is loaded. With a decay of 0 queries that make many strings
# take twice the CPU time; with 1,000 ms they take no more than without.
_ALLOCATOR = ("DUCKDB_JE_MALLOC_CONF", "retain:false,dirty_decay_ms:1000,muzzy_decay_ms:0")
# The code, decoded records, threads, search: 0.9 GB at most were seen.
_REST_MB = 3072


def memory_limit_mb(settings: Settings) -> int:
    """The most private memory of the process, in MiB."""
    if settings.serving_memory_mb:
        return settings.serving_memory_mb
    parts = settings.tail_memory_mb + settings.identity_memory_mb // 2
    return parts + 2 * settings.query_memory_mb + _REST_MB


def limit_memory(settings: Settings) -> None:
    """Set the limit for this process, where the system has one (Linux); files that are mapped do not
    count. To be called before DuckDB is imported.
    """
    os.environ.setdefault(*_ALLOCATOR)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (memory_limit_mb(settings) * 2**20, hard))
