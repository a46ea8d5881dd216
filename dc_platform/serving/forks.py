"""Processes that serving starts: forked from one that has loaded the code and does nothing else.

That is multiprocessing's forkserver: a new process is there in 40 ms and takes 7 MB of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from dc_platform.errors import RetriableError
from dc_platform.priority import BEHIND, step_back
from dc_platform.serving.limits import keep_below

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["dc_platform.serving.sql_worker", "dc_platform.serving.reader"])
# multiprocessing has one list of them, and looks at all of them without a lock.
_CHILDREN = threading.Lock()
# Longest wait for the end of one that has ended, or was killed: it may be at a disk that hangs.
_END_SECONDS = 1.0


class Child:
    """One process, which runs `target(connection, *arguments)`, and this side of its connection. Raises
    RetriableError where there is no process to be had.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self._closed = False
        self.connection, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=target, args=(theirs, *arguments), daemon=True)
        try:
            with _CHILDREN:
                self._process.start()
        except (OSError, EOFError) as error:
            self.connection.close()
            raise RetriableError(f"no process could be started for the query: {error}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int | None:
        """Its number, until its end."""
        return None if self._closed else self._process.pid

    def kill(self) -> None:
        """End it now; from any thread."""
        with _CHILDREN:
            if not self._closed and self._process.is_alive():
                self._process.kill()

    def exit_code(self) -> int | None:
        """How one ended that has: the negative number of a signal; None when nobody knows yet."""
        with _CHILDREN:
            self._process.join(_END_SECONDS)
        return self._process.exitcode

    def end(self) -> None:
        """End it, and wait for that."""
        self.kill()
        self.connection.close()
        with _CHILDREN:
            if self._closed:
                return
            self._process.join(_END_SECONDS)
            self._closed = self._process.exitcode is not None
            if self._closed:
                # Its pipes, which would stay until the next collection of garbage.
                self._process.close()


def settle(memory: int) -> None:
    """Called first in the new process: it takes `memory` bytes at most, and ends with its parent."""
    keep_below(memory)
    # Ctrl-C goes to all of a terminal's processes; this one is ended by its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Where processors are short, what lands and the tail come first.
    step_back(BEHIND)
    # People's rows are not left in a file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        # Where memory is short this is what has to go (Linux).
        Path("/proc/self/oom_score_adj").write_text("1000")
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
