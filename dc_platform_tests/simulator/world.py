"""A schedule: from a seed to a story of landers, faults and clients, and to its audit."""

from __future__ import annotations

import logging
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from dc_platform.broker.records import TopicInfo
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import FencedError, RetriableError, TopicChangedError
from dc_platform.landing.backfill import backfill_silver
from dc_platform.points import Point
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.simulator import audit
from dc_platform_tests.simulator.actors import Actor
from dc_platform_tests.simulator.broker import SimBroker
from dc_platform_tests.simulator.client import Client
from dc_platform_tests.simulator.lander import CachedDecoder, SimLander, Slot
from dc_platform_tests.simulator.store import SimStore

_MOVES = 36
_DRAIN_STEPS = 6_000
_PUT_TROUBLES = ["before", "after", "taken", "late"]
# What ends a lander that is not a fault of the platform: another one goes on.
_EXPECTED = (FencedError, TopicChangedError, RetriableError)
_MEMORY = Path("/dev/shm")


@dataclass
class Report:
    """How a schedule went. `problems` is empty when nothing was lost, doubled or wrongly named."""

    seed: int
    problems: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    events: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """The seed, and the command that plays it again."""
        lines = "\n  ".join(self.problems)
        return (
            f"seed {self.seed} fails:\n  {lines}\n"
            f"again: python -m dc_platform_tests.simulator --seed {self.seed}"
        )


class World:
    """One lake, one topic, and all that happens to them. Everything random comes from the seed."""

    def __init__(self, seed: int, root: Path) -> None:
        self.chance = Random(seed)
        self.report = Report(seed)
        self.store = SimStore(root)
        self.broker = SimBroker(
            TopicInfo("events", "cluster-1", some_uuid(1), self.chance.randint(1, 3))
        )
        self.client = Client(self.broker, self.chance)
        self.slots = 2 if self.broker.info.partitions > 1 and self.chance.random() < 0.3 else 1
        self.live: list[Actor] = []
        self.frozen: list[Actor] = []
        self.stopping = False
        self.overlapped = False
        self._slot_of: dict[str, int] = {}
        self._skew_ms = 0
        self._put_trouble = self._other_trouble = 0.0
        self._topics = self._landers = 0
        self._decoder = CachedDecoder(self.broker)
        self._moves = self._chosen_moves()

    # --- the story ---

    def run(self) -> Report:
        """All moves, the rest without faults, and the audit."""
        for _ in range(4):
            self._send()
        for _ in range(_MOVES):
            move = self.chance.choices(list(self._moves), list(self._moves.values()))[0]
            move()
            self.store.now_ms += self.chance.randrange(2_000)
            if self.report.problems:
                break
        else:
            self._drain()
        if not self.report.problems:
            self.report.problems = self._findings()
        self.report.events = sum(
            len(items) for sent in self.client.acknowledged.values() for items in sent.values()
        )
        self._end_all()
        return self.report

    def _findings(self) -> list[str]:
        sent, lake = self.client.acknowledged, self.store.lake()
        begins = {n: part.begin for n, part in enumerate(self.broker.partitions)}
        living = audit.Living(self.broker.info, begins)
        found = [
            *audit.backwards(self.store),
            *audit.findings(lake, sent, living, overlapped=self.overlapped),
        ]
        if self.report.seed % 10 == 0 and not found:
            found += audit.own_audit(lake, topics=1 + self._topics)
        return found

    def _chosen_moves(self) -> dict[Callable[[], None], float]:
        """What may happen in this story, with its weight: few kinds of faults make deep stories."""
        always: dict[Callable[[], None], float] = {self._send: 4, self._go_on: 16}
        faults: dict[Callable[[], None], float] = {
            self._kill: 3,
            self._freeze: 2,
            self._second: 1,
            self._store_trouble: 3,
            self._broker_trouble: 2,
            self._retention: 3,
            self._jump: 2,
            self._backfill: 0.7,
            self._recreate: 0.5,
            self._add_partition: 0.5,
        }
        if self.chance.random() < 0.25:
            # The rarest of what goes wrong needs two kinds of faults, each of them often.
            first = self.chance.choice([self._kill, self._freeze, self._second])
            chosen = {first: 4.0, self._retention: 4.0}
        else:
            chosen = {m: weight for m, weight in faults.items() if self.chance.random() < 0.45}
        if self._freeze in chosen:
            chosen[self._wake] = 2
        if self._store_trouble in chosen:
            chosen[self._arrive] = 2
        return always | (chosen or {self._kill: 4})

    # --- moves ---

    def _send(self) -> None:
        for _ in range(self.chance.randint(1, 5)):
            self.client.send(self.store.now_ms)

    def _go_on(self) -> None:
        for number in range(self.slots):
            if not any(self._slot_of[a.name] == number for a in self.live):
                self._start(number)
        actor = self.chance.choice(self.live)
        for _ in range(self.chance.choice([1, 2, 5, 15, 40])):
            self._step(actor)
            if actor.ended or actor.at == "idle" or self.chance.random() < 0.02:
                break

    def _kill(self) -> None:
        if self.live:
            actor = self.chance.choice(self.live)
            self._step(actor)
            if not actor.ended:
                self._note(f"kill {actor.name} at {actor.at}")
                self._tear(actor)
                self.live.remove(actor)
                actor.kill()

    def _tear(self, actor: Actor) -> None:
        """A file that was being written when its process died."""
        if actor.at == Point.IDENTITY_FILE and self.chance.random() < 0.5:
            newest = max(
                (self.store.root / SILVER_EVENTS.path / "_identities").iterdir(),
                key=lambda path: path.stat().st_mtime_ns,
            )
            newest.write_bytes(newest.read_bytes()[: self.chance.randrange(60)])

    def _freeze(self) -> None:
        if self.live and len(self.frozen) < 3:
            actor = self.chance.choice(self.live)
            self._note(f"freeze {actor.name} at {actor.at}")
            self.overlapped = True
            self.live.remove(actor)
            self.frozen.append(actor)

    def _wake(self) -> None:
        if self.frozen:
            actor = self.frozen.pop(self.chance.randrange(len(self.frozen)))
            self._note(f"wake {actor.name}")
            self.live.append(actor)

    def _second(self) -> None:
        if len(self.live) < 3:
            self.overlapped = True
            self._start(self.chance.randrange(self.slots))

    def _store_trouble(self) -> None:
        off = self._put_trouble or self._other_trouble
        self._put_trouble = 0.0 if off else self.chance.choice([0.1, 0.3, 0.8])
        self._other_trouble = 0.0 if off else self.chance.choice([0.0, 0.03, 0.3])
        self._note(f"store fails at {self._put_trouble} of puts, {self._other_trouble} of the rest")

    def _arrive(self) -> None:
        """A put that was answered with an error gets there, or never does."""
        if self.store.late:
            log, entry = self.store.late.pop(self.chance.randrange(len(self.store.late)))
            there = self.chance.random() < 0.8 and log.put(entry)
            self._note(f"late put of {log.spec.name} {entry.version}: {there}")

    def _broker_trouble(self) -> None:
        self.broker.away = not self.broker.away
        self._note(f"broker {'away' if self.broker.away else 'back'}")

    def _retention(self) -> None:
        number = self.chance.randrange(self.broker.info.partitions)
        part = self.broker.partitions[number]
        everything = self.chance.random() < 0.5
        offset = part.end if everything else self.chance.randint(part.begin, part.end)
        self._note(f"retention of partition {number} up to {offset}")
        self.broker.delete_before(number, offset)

    def _jump(self) -> None:
        self._skew_ms += self.chance.randint(-40, 40) * 3_600_000
        self._note(f"clock off by {self._skew_ms} ms")

    def _recreate(self) -> None:
        if self._topics < 2:
            self._topics += 1
            self._note("topic made anew")
            self.broker.recreate(some_uuid(1 + self._topics))
            self.client.forget_transactions()
            self._decoder = CachedDecoder(self.broker)

    def _add_partition(self) -> None:
        if self.broker.info.partitions < 4:
            self._note("partition added")
            self.broker.add_partition()

    def _backfill(self) -> None:
        days = [datetime.fromtimestamp(self._clock_ms() / 1000, UTC).date()]
        day = self.chance.choice(days)

        def work(actor: Actor) -> None:
            backfill_silver(self.store.lake(_Hooks(self, actor)), day, reached=actor.pause)

        if SILVER_EVENTS.name in self.store.logs:
            self._add("backfill", work, slot=-1)

    # --- actors ---

    def _start(self, number: int) -> None:
        self._landers += 1
        name = f"lander-{self._landers}"
        slot = Slot(number, self.slots)

        def work(actor: Actor) -> None:
            SimLander(
                self.store.lake(_Hooks(self, actor)),
                self.broker,
                self._decoder,
                slot,
                self.chance,
                name=name,
                clock_ms=self._clock_ms,
                reached=actor.pause,
                stopping=lambda: self.stopping,
            ).run()

        self._add(name, work, slot=number)

    def _add(self, name: str, work: Callable[[Actor], None], *, slot: int) -> None:
        actor = Actor(f"{name}", work)
        self._slot_of[name] = slot
        self.live.append(actor)
        self._note(f"start {name}")

    def _step(self, actor: Actor) -> None:
        actor.step()
        self.report.counts[actor.at] += 1
        self.report.trace.append(f"{actor.name}: {actor.at}")
        if not actor.ended:
            return
        self.live.remove(actor)
        self._note(f"{actor.name} ended: {actor.error!r}")
        if actor.error is not None and not isinstance(actor.error, _EXPECTED):
            self.report.problems.append("".join(traceback.format_exception(actor.error)))

    def _clock_ms(self) -> int:
        return self.store.now_ms + self._skew_ms

    def trouble(self, operation: str) -> str | None:
        """What goes wrong with an operation on the store now."""
        rate = self._put_trouble if operation == "put" else self._other_trouble
        if not rate or self.chance.random() >= rate:
            return None
        what = self.chance.choice(_PUT_TROUBLES) if operation == "put" else "away"
        self._note(f"{operation}: {what}")
        return what

    # --- the end ---

    def _drain(self) -> None:
        """Everything works again; frozen ones are killed or go on beside a new lander."""
        self._note("drain")
        self.broker.away = False
        self._put_trouble = self._other_trouble = 0.0
        self.client.end_transactions()
        while self.store.late:
            self._arrive()
        while self.frozen and not self.report.problems:
            self._wake()
            if self.chance.random() < 0.3:
                self.live.pop().kill()
        self.stopping = True
        clean = False
        for _ in range(_DRAIN_STEPS):
            if self.report.problems:
                return
            if not self.live:
                if clean:
                    return
                # Alone, from the start: whatever the others left, these must get to the end.
                clean = True
                for number in range(self.slots):
                    self._start(number)
            self._step(self.chance.choice(self.live))
        self.report.problems.append(f"not caught up after {_DRAIN_STEPS} steps")

    def _end_all(self) -> None:
        for actor in [*self.live, *self.frozen]:
            actor.kill()

    def _note(self, what: str) -> None:
        self.report.trace.append(f"-- {what}")
        self.report.counts[what.split()[0]] += 1


class _Hooks:
    """The store as one actor sees it."""

    def __init__(self, world: World, actor: Actor) -> None:
        self._world = world
        self._actor = actor

    def pause(self, at: str) -> None:
        self._actor.pause(at)

    def trouble(self, operation: str) -> str | None:
        return self._world.trouble(operation)


def play(seed: int) -> Report:
    """One schedule, in a directory of its own that is gone afterwards."""
    where = _MEMORY if _MEMORY.is_dir() else None
    root = Path(tempfile.mkdtemp(prefix="dcp-sim-", dir=where))
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return World(seed, root).run()
    finally:
        logging.disable(disabled)
        shutil.rmtree(root, ignore_errors=True)
