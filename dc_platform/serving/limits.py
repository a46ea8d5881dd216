"""How much memory the process may take: what no limit of DuckDB counts ends a query, not the process.

DuckDB counts what its tables and operators hold, not the strings and lists that functions make on the
way: `repeat(x, 100000000)` for 2,048 rows is 200 GB. Past the limit of the process DuckDB's next
allocation fails, and the query ends with an error. What it had is given back within a second; DuckDB's
allocator would keep it, and leave nothing to threads and to whoever else asks the system.

The system limits what a process has mapped (RLIMIT_DATA), not what of it is memory: allocators keep
ranges that are empty, 9 GB beside 1.1 GB of memory after two minutes of 20,000 events/s. So ten times a
second the limit is set to what is mapped and as much more as there is room for in memory.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

from dc_platform.settings import Settings

# jemalloc's, which reads it when DuckDB is loaded. With a decay of 0 queries that make many strings
# take twice the CPU time; with 1,000 ms they take no more than without.
_ALLOCATOR = ("DUCKDB_JE_MALLOC_CONF", "retain:false,dirty_decay_ms:1000,muzzy_decay_ms:0")
# The code, decoded records, threads, search: 0.9 GB at most were seen.
_REST_MB = 3072
_EVERY_SECONDS = 0.1
_STATM = Path("/proc/self/statm")


def memory_limit_mb(settings: Settings) -> int:
    """The most private memory of the process, in MiB."""
    if settings.serving_memory_mb:
        return settings.serving_memory_mb
    parts = settings.tail_memory_mb + settings.identity_memory_mb // 2
    return parts + 2 * settings.query_memory_mb + _REST_MB


def limit_memory(settings: Settings) -> None:
    """Limit this process from now on, where the system can (Linux); files that are mapped do not
    count. To be called before DuckDB is imported.
    """
    os.environ.setdefault(*_ALLOCATOR)
    keep_below(memory_limit_mb(settings) * 2**20)


def keep_below(limit: int) -> None:
    """Limit this process to so many bytes of private memory, from now on, where the system can."""
    if _STATM.exists():
        set_limit(limit)
        threading.Thread(target=_keep, args=(limit,), name="memory", daemon=True).start()


def set_limit(limit: int) -> None:
    """Let the process map as much more as there is room for below `limit` bytes of memory."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    mapped, private = _usage()
    allowed = mapped + max(0, limit - private)
    if hard != resource.RLIM_INFINITY:
        allowed = min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, hard))


def _keep(limit: int) -> None:
    while True:
        time.sleep(_EVERY_SECONDS)
        set_limit(limit)


def _usage() -> tuple[int, int]:
    """Bytes that are mapped for data, and of memory that is not shared with files."""
    _, resident, shared, _, _, data, _ = map(int, _STATM.read_text().split())
    page = resource.getpagesize()
    return data * page, (resident - shared) * page
