"""Keeps the parts of one stack running.

One loop, which never waits for a part: it reaps, starts what may start, and writes down what
changed. The parts do not depend on it: they live in sessions of their own, go on when it is killed,
and the next supervisor takes them over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from dc_platform.registry.database import Database
from dc_platform.stack.ending import Ending
from dc_platform.stack.observer import Observer
from dc_platform.stack.parts import Part
from dc_platform.stack.processes import identify
from dc_platform.stack.record import PartRecord, StackDirectory, StackRecord
from dc_platform.stack.unit import Unit

logger = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
_BUSY_TICK_SECONDS = 0.2


class Supervisor:
    """Runs `parts` in `directory` until it is told to stop."""

    def __init__(
        self,
        directory: StackDirectory,
        parts: Sequence[Part],
        environment: Mapping[str, str],
        *,
        addresses: Mapping[str, str | None],
        registry: Database | None = None,
        show: Callable[[Supervisor], None] = lambda supervisor: None,
    ) -> None:
        self.directory = directory
        self.units = {part.name: Unit(part, directory, environment) for part in parts}
        self.record = StackRecord(
            stack_id=directory.stack_id,
            addresses=dict(addresses),
            supervisor=identify(os.getpid()),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._show = show
        self._observer = Observer({part.name: part for part in parts}, self._pids, registry)
        self._signals = 0
        self._written: StackRecord | None = None

    def run(self, adopted: Mapping[str, PartRecord]) -> None:
        """Supervise until a signal, then end all parts. `adopted`: those that run already."""
        with self._listening() as wake:
            try:
                for name, part in adopted.items():
                    self._adopt(name, part)
                self._observer.start()
                while not self._signals:
                    self._turn()
                    busy = any(unit.state == "starting" for unit in self.units.values())
                    select.select([wake], [], [], _BUSY_TICK_SECONDS if busy else _TICK_SECONDS)
                    _drain(wake)
            finally:
                self._stop()

    def _turn(self) -> None:
        for unit in self.units.values():
            unit.look(self._observer)
            if unit.is_due() and all(self.units[need].was_ready for need in unit.part.needs):
                unit.start()
        self._write()
        self._draw()

    def _adopt(self, name: str, part: PartRecord) -> None:
        unit = self.units.get(name)
        if unit is None:
            # Runs from an earlier start with other options: ended with the rest.
            self.record.parts[name] = part
            return
        unit.adopt(part)
        if part.pid:
            logger.info("%s runs already (pid %s): taken over", name, part.pid)

    def _pids(self) -> dict[str, int]:
        return {name: unit.pid for name, unit in list(self.units.items()) if unit.pid}

    def _write(self) -> None:
        self.record.parts.update({name: unit.record() for name, unit in self.units.items()})
        self.record.landing = self._observer.landing
        self.record.ready = all(unit.state == "ready" for unit in self.units.values())
        if self.record == self._written:
            return
        try:
            self.directory.write(self.record)
            self._written = replace(self.record, parts=dict(self.record.parts))
        except OSError as error:
            # A full disk is no reason to leave the parts alone.
            logger.warning("cannot write %s: %s", self.directory.stack_file, error)

    def _stop(self) -> None:
        """End everything; a signal that comes meanwhile makes it quick."""
        before = self._signals
        self._observer.stop()
        self._observer.landing = {}
        for unit in self.units.values():
            unit.is_ending()
        self._write()
        ending = Ending(
            self.directory.stack_id,
            hurry=lambda: self._signals > before,
            say=logger.info,
            reap=self._reap,
        )
        for name in ending.end(dict(self.record.parts)):
            logger.warning("%s did not end in time and was killed", name)
        for unit in self.units.values():
            unit.has_ended()
        self.record.supervisor = None
        self._write()
        self._draw()

    def _reap(self) -> None:
        for unit in self.units.values():
            unit.reap()
        self._draw()

    def _draw(self) -> None:
        # A terminal that went away is no reason to leave the parts alone.
        with contextlib.suppress(OSError):
            self._show(self)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        """Count signals that mean the end; the socket becomes readable at each signal.

        Having a handler also matters to the parts: a shell starts background jobs with SIGINT
        ignored, that would be inherited, and Dagster would treat SIGTERM like it.
        """
        wake, write = socket.socketpair()
        wake.setblocking(False)
        write.setblocking(False)

        def count(_number: int, _frame: object) -> None:
            self._signals += 1

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, count) for number in numbers}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        old = signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        try:
            yield wake
        finally:
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            wake.close()
            write.close()


def _drain(wake: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while wake.recv(512):
            pass
