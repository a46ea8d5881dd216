"""Landing stands still while a restore is going on: the restore holds the lease of every slot.

It asks for them as a landing run does, so a run that lands gives its own up after its commit, and the
sensor starts none as long as the restore lives. That spares work and surprises. What protects the
tables are the commits: a lander without a lease (`dcp land`) is fenced by silver's new epoch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dc_platform.errors import PlatformError, RetriableError
from dc_platform.registry.leases import Leases, landing_slot

log = logging.getLogger(__name__)

_RENEW_SECONDS = 1.0
_ASK_SECONDS = 0.1
# A landing run gives its lease up after the commit that it is in.
_PATIENCE_SECONDS = 120.0

Held = list[tuple[str, int]]


@contextmanager
def landing_stopped(leases: Leases, slots: int, owner: str) -> Iterator[None]:
    """Hold all landing slots' leases for the length of the block.

    Raises RetriableError when a run does not give its lease up.
    """
    held: Held = []
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(leases, owner, held, stop), daemon=True)
    renewing.start()
    try:
        for number in sorted({*range(slots), *leases.landing()}):
            slot = landing_slot(number)
            held.append((slot, _acquire(leases, slot, owner)))
        yield
    finally:
        stop.set()
        renewing.join()
        for slot, epoch in held:
            leases.release(slot, owner, epoch)


def _acquire(leases: Leases, slot: str, owner: str) -> int:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        epoch = leases.acquire(slot, owner)
        if epoch is not None:
            return epoch
        time.sleep(_ASK_SECONDS)
    raise RetriableError(
        f"{slot} did not stop landing within {_PATIENCE_SECONDS:.0f} s: nothing was restored; end its"
        " run in Dagster and try again"
    )


def _renew(leases: Leases, owner: str, held: Held, stop: threading.Event) -> None:
    while not stop.wait(_RENEW_SECONDS):
        for slot, epoch in list(held):
            try:
                if leases.renew(slot, owner, epoch) is None:
                    log.warning("%s was taken from this restore", slot)
            except PlatformError as error:
                log.warning("%s", error)
