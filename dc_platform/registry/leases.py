"""Leases: one live owner per landing slot.

A lease says who should write; it never protects the tables (the Delta commits do, by their txns).
It is renewed each second and may be taken when it is stale, or at once when its process is gone
from this host. Times in it are of its owner's clock, which may be wrong or have just been set: stale
is what was not renewed for 10 s by the clocks, and for 3 s while this process looked on. A process
that wants a lease that lives asks for it, and the owner gives it up after its commit: that is how a
landing run is handed over without a gap.
"""

from __future__ import annotations

import os
import socket
from time import monotonic
from typing import NamedTuple

import psutil
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from dc_platform.registry.database import Database, now_ms
from dc_platform.registry.models import LeaseRow

_LANDING = "landing-"

# Owners renew each second.
_WATCH_SECONDS = 3.0

_ENSURE = text("insert into leases (slot, epoch) values (:slot, 0) on conflict (slot) do nothing")


def landing_slot(number: int) -> str:
    """The name of a landing slot's lease."""
    return f"{_LANDING}{number}"


class Lease(NamedTuple):
    """A lease as it stands. Ages are in seconds. Not `alive`: its owner died without giving it up."""

    slot: str
    owner: str
    epoch: int
    host: str | None
    pid: int | None
    held_seconds: float
    renewed_seconds_ago: float
    wanted_by: str | None
    alive: bool = True


class Leases:
    """Takes, renews and releases leases. Every method is one transaction."""

    def __init__(self, database: Database, *, stale_seconds: float = 10.0) -> None:
        self._database = database
        self._stale_ms = int(stale_seconds * 1000)
        self._host = socket.gethostname()
        # Slot → the renewal that was seen last, and when, by this process's own clock.
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def acquire(self, slot: str, owner: str) -> int | None:
        """Take the lease, giving its epoch; or ask its owner for it, giving None."""
        with self._database.session() as session:
            session.execute(_ENSURE, {"slot": slot})
            row = session.get_one(LeaseRow, slot, with_for_update=True)
            # Read when the row is ours: a wait for it must not make its owner look unborn or dead.
            at = now_ms()
            if row.owner not in (None, owner) and self._lives(row, at):
                row.wanted_by, row.wanted_ms = owner, at
                return None
            row.owner, row.epoch = owner, row.epoch + 1
            row.host, row.pid = self._host, os.getpid()
            row.process_started = psutil.Process().create_time()
            row.acquired_ms = row.renewed_ms = at
            row.wanted_by = row.wanted_ms = None
            return row.epoch

    def renew(self, slot: str, owner: str, epoch: int) -> Lease | None:
        """Renew; None when somebody else has the lease now."""
        with self._database.session() as session:
            row = _held(session, slot, owner, epoch)
            if row is None:
                return None
            at = now_ms()
            row.renewed_ms = at
            if row.wanted_ms is not None and at - row.wanted_ms > self._stale_ms:
                row.wanted_by = row.wanted_ms = None
            return _lease(row, at)

    def release(self, slot: str, owner: str, epoch: int) -> None:
        """Give the lease up; nothing happens when it is somebody else's."""
        with self._database.session() as session:
            row = _held(session, slot, owner, epoch)
            if row is not None:
                row.owner = row.pid = None

    def current(self, slot: str) -> Lease | None:
        """The lease when it has a living owner."""
        lease = self.last(slot)
        return lease if lease is not None and lease.alive else None

    def last(self, slot: str) -> Lease | None:
        """The lease with its owner, alive or dead; None when the last one gave it up."""
        with self._database.reading() as session:
            row = session.get(LeaseRow, slot)
            at = now_ms()
            if row is None or row.owner is None:
                return None
            return _lease(row, at, alive=self._lives(row, at))

    def landing(self) -> dict[int, Lease]:
        """Landing slot → its lease with its owner, alive or dead; none that was given up."""
        query = select(LeaseRow).where(LeaseRow.slot.startswith(_LANDING))
        with self._database.reading() as session:
            rows = session.scalars(query).all()
            at = now_ms()
            leases = [_lease(row, at, alive=self._lives(row, at)) for row in rows if row.owner]
        slots = {int(lease.slot.removeprefix(_LANDING)): lease for lease in leases}
        return dict(sorted(slots.items()))

    def _lives(self, row: LeaseRow, at: int) -> bool:
        if row.owner is None or row.renewed_ms is None:
            return False
        unchanged = self._unchanged_seconds(row.slot, (row.epoch, row.renewed_ms))
        if row.host == self._host and not _process_lives(row.pid, row.process_started):
            return False
        return abs(at - row.renewed_ms) <= self._stale_ms or unchanged < _WATCH_SECONDS

    def _unchanged_seconds(self, slot: str, renewal: tuple[int, int]) -> float:
        now = monotonic()
        seen, since = self._seen.get(slot, (None, now))
        if seen != renewal:
            since = now
            self._seen[slot] = (renewal, now)
        return now - since


def _process_lives(pid: int | None, started: float | None) -> bool:
    try:
        process = psutil.Process(pid)
        same = started is None or abs(process.create_time() - started) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _held(session: Session, slot: str, owner: str, epoch: int) -> LeaseRow | None:
    row = session.get(LeaseRow, slot, with_for_update=True)
    return row if row is not None and row.owner == owner and row.epoch == epoch else None


def _lease(row: LeaseRow, at: int, *, alive: bool = True) -> Lease:
    return Lease(
        slot=row.slot,
        owner=row.owner or "",
        epoch=row.epoch,
        host=row.host,
        pid=row.pid,
        held_seconds=(at - (row.acquired_ms or at)) / 1000,
        renewed_seconds_ago=(at - (row.renewed_ms or at)) / 1000,
        wanted_by=row.wanted_by,
        alive=alive,
    )
