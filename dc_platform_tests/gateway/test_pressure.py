"""Back-pressure and the circuit in front of Kafka, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pybreaker
import pytest

from dc_platform.errors import BrokerUnavailableError
from dc_platform.gateway.pressure import Circuit, EventQueue, OverloadedError
from dc_platform_tests.helpers.virtual_time import run, settle


def queue_of(limit: int = 100, rate: int = 10, patience: float = 30.0) -> EventQueue:
    return EventQueue(limit=limit, slowdown=0.8, slow_rate=rate, patience=patience)


def now() -> float:
    return asyncio.get_running_loop().time()


class Places:
    """Requests that hold a place until the test lets them go."""

    def __init__(self, queue: EventQueue) -> None:
        self.queue = queue
        self.entered: list[int] = []
        self.times: list[float] = []
        self._leave: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def enter(self, events: int) -> asyncio.Task[None]:
        leave = asyncio.Event()
        number = len(self._leave)
        self._leave.append(leave)

        async def hold() -> None:
            async with self.queue.admit(events):
                self.entered.append(number)
                self.times.append(now())
                await leave.wait()

        self.tasks.append(asyncio.create_task(hold()))
        await settle()
        return self.tasks[-1]

    async def leave(self, number: int) -> None:
        self._leave[number].set()
        await settle()


def test_up_to_80_percent_nobody_waits() -> None:
    async def scenario() -> None:
        places = Places(queue_of())
        began = now()
        for _ in range(8):
            await places.enter(10)
        await places.enter(10)
        assert places.times == [began] * 9
        assert places.queue.waiting == 90
        for number in range(9):
            await places.leave(number)
        assert places.queue.waiting == 0

    run(scenario())


def test_above_80_percent_requests_come_in_at_the_slow_rate() -> None:
    async def scenario() -> None:
        places = Places(queue_of(limit=1000, rate=10))
        await places.enter(801)
        began = now()
        tasks = [await places.enter(1) for _ in range(5)]
        assert places.entered == [0]
        await asyncio.sleep(1)
        assert [t - began for t in places.times[1:]] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
        assert places.entered == [0, 1, 2, 3, 4, 5]
        # Below again, nobody waits.
        await places.leave(0)
        at = now()
        await places.enter(1)
        assert places.times[-1] == at
        assert not any(task.done() for task in tasks)

    run(scenario())


def test_a_full_queue_lets_in_when_there_is_room() -> None:
    async def scenario() -> None:
        places = Places(queue_of())
        await places.enter(60)
        await places.enter(15)
        await places.enter(30)
        assert places.entered == [0, 1]
        assert places.queue.waiting == 75
        await places.leave(1)
        assert places.entered == [0, 1, 2]
        assert places.queue.waiting == 90

    run(scenario())


def test_a_full_queue_gives_up_after_its_patience() -> None:
    async def scenario() -> None:
        places = Places(queue_of(patience=7.0))
        await places.enter(80)
        began = now()
        refused = await places.enter(21)
        with pytest.raises(OverloadedError, match="80 events wait"):
            await refused
        assert now() - began == pytest.approx(7.0)
        assert places.queue.waiting == 80
        # It left no trace: what fits still comes in.
        await places.enter(20)
        assert places.queue.waiting == 100

    run(scenario())


def test_a_request_larger_than_the_queue_comes_in_when_it_is_empty() -> None:
    async def scenario() -> None:
        places = Places(queue_of())
        await places.enter(1)
        await places.enter(500)
        assert places.entered == [0]
        await places.leave(0)
        assert places.entered == [0, 1]
        assert places.queue.waiting == 500
        await places.leave(1)
        assert places.queue.waiting == 0

    run(scenario())


def test_whoever_fails_or_goes_away_frees_its_place() -> None:
    async def scenario() -> None:
        queue = queue_of()
        places = Places(queue)
        with pytest.raises(RuntimeError):
            async with queue.admit(100):
                raise RuntimeError
        assert queue.waiting == 0
        holding = await places.enter(75)
        waiting = await places.enter(50)
        gone = await places.enter(50)
        gone.cancel()
        await settle()
        assert queue.waiting == 75
        holding.cancel()
        await settle()
        assert not waiting.done()
        assert queue.waiting == 50

    run(scenario())


class Breaker:
    """A circuit, its clock, and a broker that answers a probe or does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = False
        self.probes = 0
        start = datetime.now(UTC)
        self.passed = 0.0

        class Clock(datetime):
            @classmethod
            def now(cls, _: Any = None) -> datetime:  # type: ignore[override]
                return start + timedelta(seconds=self.passed)

        monkeypatch.setattr(pybreaker, "datetime", Clock)
        self.circuit = Circuit(failures=5, seconds=60, probe=self._probe)

    async def _probe(self) -> bool:
        self.probes += 1
        return self.answers

    def call(self, error: BaseException | None = None) -> None:
        with self.circuit.calling():
            if error is not None:
                raise error

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(BrokerUnavailableError):
                self.call(BrokerUnavailableError("Kafka is away"))

    def open(self) -> Breaker:
        self.fail(5)
        assert self.circuit.state == "open"
        return self


@pytest.fixture
def breaker(monkeypatch: pytest.MonkeyPatch) -> Breaker:
    return Breaker(monkeypatch)


def test_five_failures_in_a_row_open_the_circuit(breaker: Breaker) -> None:
    breaker.fail(4)
    breaker.call()
    breaker.fail(4)
    assert breaker.circuit.state == "closed"
    breaker.fail()
    assert breaker.circuit.state == "open"


def test_an_open_circuit_fails_without_trying(breaker: Breaker) -> None:
    breaker.open()
    entered = False
    with pytest.raises(BrokerUnavailableError), breaker.circuit.calling():
        entered = True
    assert not entered


def test_after_a_minute_one_call_is_tried(breaker: Breaker) -> None:
    breaker.open().passed = 59.9
    with pytest.raises(BrokerUnavailableError):
        breaker.call()
    breaker.passed = 60.1
    breaker.fail()
    assert breaker.circuit.state == "open"
    breaker.passed = 119
    with pytest.raises(BrokerUnavailableError):
        breaker.call()
    breaker.passed = 121
    breaker.call()
    assert breaker.circuit.state == "closed"
    # The count begins anew.
    breaker.fail(4)
    assert breaker.circuit.state == "closed"


def test_the_circuit_closes_early_when_a_probe_succeeds(breaker: Breaker) -> None:
    async def scenario() -> None:
        watching = asyncio.create_task(breaker.circuit.watch())
        await asyncio.sleep(10)
        assert breaker.probes == 0
        breaker.open()
        await asyncio.sleep(10.5)
        assert 9 <= breaker.probes <= 11
        assert breaker.circuit.state == "open"
        breaker.answers = True
        await asyncio.sleep(1.1)
        assert breaker.circuit.state == "closed"
        breaker.call()
        probes = breaker.probes
        await asyncio.sleep(10)
        assert breaker.probes == probes
        breaker.fail(4)
        assert breaker.circuit.state == "closed"
        breaker.fail()
        assert breaker.circuit.state == "open"
        watching.cancel()

    run(scenario())


def test_a_cancelled_call_is_no_failure(breaker: Breaker) -> None:
    for _ in range(10):
        with pytest.raises(asyncio.CancelledError):
            breaker.call(asyncio.CancelledError())
    assert breaker.circuit.state == "closed"


def test_calls_that_were_under_way_when_it_opened_do_not_close_it(breaker: Breaker) -> None:
    with breaker.circuit.calling():
        breaker.open()
    assert breaker.circuit.state == "open"
