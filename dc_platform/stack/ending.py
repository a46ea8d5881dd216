"""Ending a stack: in order, with time to finish, and nothing left behind.

Works from the record alone, so `dcp down` ends the parts of a supervisor that is gone just as the
supervisor itself does.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from dc_platform.stack.processes import Identity, carries, leaders, lives, members, send
from dc_platform.stack.record import PartRecord, StackRecord

_LOOK_SECONDS = 0.1
_KILL_SECONDS = 10.0


@dataclass
class Ending:
    """How a stack is ended. `hurry` is asked again and again: once true, nobody is waited for."""

    stack_id: str
    hurry: Callable[[], bool] = field(default=lambda: False)
    say: Callable[[str], None] = field(default=lambda text: None)
    # Reaps the caller's own children, which otherwise stay as zombies.
    reap: Callable[[], None] = field(default=lambda: None)

    def end(self, parts: dict[str, PartRecord]) -> list[str]:
        """End all parts, the highest stage first; gives the names of those that had to be killed."""
        killed: list[str] = []
        for stage in sorted({part.stage for part in parts.values()}, reverse=True):
            running = {
                name: part
                for name, part in parts.items()
                if part.stage == stage and self._rest(part)
            }
            if running:
                self.say(f"ending {', '.join(running)}")
                killed += self._end_together(running)
        return killed

    def _end_together(self, parts: dict[str, PartRecord]) -> list[str]:
        for part in parts.values():
            # The whole group: Dagster's code server waits for its run workers, but tells them
            # nothing; a lander that is told finishes its commit and goes.
            for identity in self._rest(part):
                send(identity, signal.SIGTERM)
        began = time.monotonic()
        killed = []
        while parts:
            self.reap()
            waited = time.monotonic() - began
            for name, part in list(parts.items()):
                rest = self._rest(part)
                if not rest:
                    del parts[name]
                elif self.hurry() or waited > part.grace:
                    killed.append(name)
                    self._kill(rest, part)
                    del parts[name]
            if parts:
                time.sleep(_LOOK_SECONDS)
        return killed

    def _kill(self, rest: Sequence[Identity], part: PartRecord) -> None:
        deadline = time.monotonic() + _KILL_SECONDS
        while rest and time.monotonic() < deadline:
            for identity in rest:
                send(identity, signal.SIGKILL)
            self.reap()
            time.sleep(0.02)
            rest = self._rest(part)

    def _rest(self, part: PartRecord) -> list[Identity]:
        """What still lives of a part: its process and whatever is left in its groups."""
        rest = members(part.groups, self.stack_id) if part.groups else []
        own = part.identity
        if own and own.pid not in {identity.pid for identity in rest} and lives(own):
            rest.append(own)
        return rest


def surviving_parts(record: StackRecord | None, stack_id: str) -> dict[str, PartRecord]:
    """The recorded parts as far as they live, and those whose start was not recorded any more."""
    recorded = record.parts if record else {}
    parts: dict[str, PartRecord] = {}
    for name, part in recorded.items():
        own = part.identity
        alive = own is not None and carries(own, stack_id)
        groups = [group for group in part.groups if members([group], stack_id)]
        if alive or groups:
            parts[name] = replace(part, pid=part.pid if alive else None, groups=groups)
    for leader, name in leaders(stack_id).items():
        part = parts.setdefault(name, replace(recorded.get(name) or PartRecord(), pid=None))
        if leader.pid not in part.groups:
            part.groups.append(leader.pid)
        if part.pid is None:
            part.pid, part.started = leader
    return parts
