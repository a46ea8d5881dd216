"""Who supervises a data directory: one process, by a lock that dies with it."""

from __future__ import annotations

from filelock import BaseFileLock, FileLock, Timeout

from dc_platform.errors import ConfigurationError
from dc_platform.stack.record import StackDirectory

# A supervisor that ends, or someone who looks whether one lives, has the lock for a moment.
_LOCK_SECONDS = 2.0


def hold(directory: StackDirectory) -> BaseFileLock:
    """Become the supervisor of a directory; the lock dies with the process."""
    directory.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory.lock_file)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        raise ConfigurationError(
            f"the stack in {directory.path} runs already: dcp status shows it, dcp down ends it"
        ) from None
    return lock


def is_held(directory: StackDirectory) -> bool:
    """Whether a supervisor lives."""
    if not directory.lock_file.exists():
        return False
    lock = FileLock(directory.lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
