"""One supervised part: its process, its state, and when it is started again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol

from dc_platform.errors import PlatformError
from dc_platform.stack.parts import Part
from dc_platform.stack.processes import (
    PART_VARIABLE,
    Identity,
    Process,
    Usage,
    members,
    spawn,
)
from dc_platform.stack.record import PartRecord, StackDirectory

logger = logging.getLogger(__name__)

_LONGEST_WAIT = 30.0
# A part that lived so long is healthy: what ends it next is not what ended it before.
_HEALTHY_SECONDS = 60.0
_EXIT_SECONDS = 5.0


class Answers(Protocol):
    """What the observer knows."""

    def answer(self, name: str, pid: int) -> bool | None:
        """Whether the part in this process does its work; None: not asked yet."""


def wait_before_start(deaths: int) -> float:
    """Seconds before a part is started again after so many early deaths: 1, 2, 4 … 30."""
    return min(2.0 ** (deaths - 1), _LONGEST_WAIT) if deaths else 0.0


class Unit:
    """States: waiting (for what it needs), starting, ready, unwell (runs, but does not answer as it
    should), down (ended; is started again), ending (with the stack)."""

    def __init__(
        self, part: Part, directory: StackDirectory, environment: Mapping[str, str]
    ) -> None:
        self.part = part
        self.state = "waiting"
        self.note = ""
        self.restarts = 0
        self.was_ready = False
        self.early_deaths = 0
        self._directory = directory
        self._environment = {**environment, **part.environment, PART_VARIABLE: part.name}
        self._process: Process | None = None
        self._groups: list[int] = []
        self._born = 0.0
        self._next_start = 0.0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    def usage(self) -> Usage | None:
        """What its process takes now."""
        return self._process.usage() if self._process else None

    def adopt(self, part: PartRecord) -> None:
        """Take over a process that an earlier supervisor started, and what is left of others."""
        self.restarts = part.restarts
        self._groups = list(part.groups)
        if part.identity:
            self._process = Process(part.identity)
            self.state, self._born = "starting", time.monotonic()

    def is_due(self) -> bool:
        """Whether it has no process and should have one now."""
        return self._process is None and time.monotonic() >= self._next_start

    def start(self) -> None:
        """Start its process; a failure is noted, and tried again later."""
        try:
            self._process = spawn(
                self.part.prepare(),
                log=self._directory.log(self.part.name),
                environment=self._environment,
                directory=self._directory.path,
                nice=self.part.nice,
            )
        except (PlatformError, OSError) as error:
            self._died(f"could not be started: {error}")
            return
        # Groups in which something still lives: run workers outlive a code server that was killed.
        self._groups = [group for group in self._groups if self._has_members(group)]
        self._groups.append(self._process.pid)
        self._born = time.monotonic()
        self.state = "starting"
        logger.info("%s started (pid %d)%s", self.part.name, self._process.pid, self._where())

    def look(self, answers: Answers) -> None:
        """Notice that it ended, became ready, or stopped to answer."""
        if self._process is None:
            return
        if not self._process.lives():
            code = self._process.exit_code
            self._process = None
            self._died("ended" if code is None else _ending(code))
            return
        answer = answers.answer(self.part.name, self._process.pid)
        if answer is None:
            return
        if answer and self.state != "ready":
            seconds = time.monotonic() - self._born
            logger.info("%s is ready after %.1f s%s", self.part.name, seconds, self._where())
            self.state, self.note, self.was_ready = "ready", "", True
        elif not answer and self.state == "ready":
            logger.warning("%s does not answer as it should", self.part.name)
            self.state = "unwell"

    def reap(self) -> None:
        """Let the process go when it has ended."""
        if self._process is not None and not self._process.lives():
            self._process = None
            self.state = "down"

    def is_ending(self) -> None:
        """The stack is being ended."""
        self.state = "ending" if self._process else "down"

    def has_ended(self) -> None:
        """The stack was ended: the last threads of a process may still be on their way out."""
        deadline = time.monotonic() + _EXIT_SECONDS
        self.reap()
        while self._process is not None and time.monotonic() < deadline:
            time.sleep(0.02)
            self.reap()
        self._process = None
        self.state = "down"

    def record(self) -> PartRecord:
        """The part for `stack.json`."""
        process = self._process.identity if self._process else Identity(0, 0.0)
        return PartRecord(
            state=self.state,
            where=self.part.where,
            pid=process.pid or None,
            started=process.started,
            restarts=self.restarts,
            early_deaths=self.early_deaths,
            stage=self.part.stage,
            grace=self.part.grace,
            groups=list(self._groups),
            note=self.note,
        )

    def _died(self, how: str) -> None:
        lived = time.monotonic() - self._born if self._born else 0.0
        self.early_deaths = 1 if lived >= _HEALTHY_SECONDS else self.early_deaths + 1
        wait = wait_before_start(self.early_deaths)
        self._next_start = time.monotonic() + wait
        self.state, self.was_ready = "down", False
        self.restarts += 1
        self.note = how
        logger.warning("%s %s; is started again in %.0f s", self.part.name, how, wait)

    def _has_members(self, group: int) -> bool:
        return bool(members([group], self._directory.stack_id))

    def _where(self) -> str:
        return f", {self.part.where}" if self.part.where else ""


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
