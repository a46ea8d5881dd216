"""Priorities: gateway, Kafka and the tail; then answers, landing and Trino; then all other runs.

With all at one priority whoever has most threads gets most: on two cores, at 20,000 events/s, with
landing catching up, Trino compiling and a run of gold loading its code, the tail waited for a core
ten times as long as it used one, and answers were 1.4 s behind the acknowledgements.

Niceness alone is not enough. Linux divides the cores among sessions first where it has autogroups
(`man 7 sched`), and each part of a stack is a session: so a session has a niceness, too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

# A weight of 335 where the tail has 1024: the other threads of serving, and the stack's parts that do
# not take events, acknowledge or answer.
BEHIND = 5
# A weight of 36, a tenth of landing's, and all of a core that idles. 19 would be 15: what holds a lock
# of Dagster's SQLite file must come to its end.
LAST = 15
# Linux lets others than root set one session's in a tenth of a second.
_SESSION_TRIES, _SESSION_SECONDS = 20, 0.11


def step_back(nice: int) -> None:
    """Give this process the niceness `nice`, for good; one that has more already keeps it.

    On Linux each thread has its own: those that there are get it, those to come take it from them. The
    priority of reads and writes follows it there, as long as nobody sets that (ioprio_set(2)).
    """
    if sys.platform == "win32":
        return
    threads = [0]
    if sys.platform == "linux":
        threads = [int(entry.name) for entry in Path("/proc/self/task").iterdir()]
    for thread in threads:
        _set(thread, nice)


def step_back_thread(nice: int) -> None:
    """The same for the calling thread alone, and for threads that it starts; only on Linux."""
    if sys.platform == "linux":
        _set(threading.get_native_id(), nice)


def step_back_session(pid: int, nice: int) -> None:
    """The same for a process that has just begun a session of its own, and for all of that session."""
    if sys.platform == "win32" or not nice:
        return
    _set(pid, nice)
    group = Path(f"/proc/{pid}/autogroup")
    for _ in range(_SESSION_TRIES):
        try:
            group.write_text(str(nice))
        except BlockingIOError:
            time.sleep(_SESSION_SECONDS)
        except OSError:
            return  # no autogroups, or it has ended
        else:
            return


def _set(thread: int, nice: int) -> None:
    # One may have ended since, and nobody but root may raise a priority.
    with suppress(OSError):
        least = max(nice, os.getpriority(os.PRIO_PROCESS, thread))
        os.setpriority(os.PRIO_PROCESS, thread, least)
