"""What gateways report of sources: how fast, when last, and whether most of it is rejected."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from dc_platform.errors import StoreUnavailableError
from dc_platform.gateway import activity as activity_module
from dc_platform.gateway.activity import ActivityLog
from dc_platform.registry.sources import Sources, SourceStatus, SourceType
from dc_platform_tests.helpers.virtual_time import run

PERIOD = 2.0
START_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module's clocks are the loop's; reports happen on the loop, where time stands still."""

    def now() -> float:
        return asyncio.get_running_loop().time() - 1000.0

    async def at_once(work: object, *arguments: object) -> object:
        return work(*arguments)  # type: ignore[operator]

    time = SimpleNamespace(
        monotonic=now, time_ns=lambda: START_MS * 1_000_000 + int(now() * 1_000_000_000)
    )
    monkeypatch.setattr(activity_module, "time", time)
    monkeypatch.setattr(asyncio, "to_thread", at_once)


def test_rates_last_times_and_rejections_are_reported(sources: Sources) -> None:
    good, bad, even = (sources.create(n, SourceType.SERVER)[0].source_id for n in "abc")

    def shown(source_id: str) -> tuple[float, int | None, SourceStatus]:
        found = sources.get(source_id)
        assert found is not None
        return found.ingestion_rate, found.last_seen_ms, found.status

    async def scenario() -> None:
        log = ActivityLog(sources)
        following = asyncio.create_task(log.follow())
        await asyncio.sleep(0.5)
        log.saw(good, accepted=30, rejected=10)
        log.saw(bad, accepted=1, rejected=2)
        log.saw(even, accepted=1, rejected=1)
        await asyncio.sleep(0.5)
        log.saw(good, accepted=60, rejected=0)
        await asyncio.sleep(1.5)
        assert shown(good) == (50.0, START_MS + 1000, SourceStatus.ACTIVE)
        assert shown(bad) == (1.5, START_MS + 500, SourceStatus.ERROR)
        assert shown(even)[2] is SourceStatus.ACTIVE
        # Silence is a rate of zero; what was last seen of them stays.
        await asyncio.sleep(10 * PERIOD)
        assert shown(good) == (0.0, START_MS + 1000, SourceStatus.ACTIVE)
        assert shown(bad) == (0.0, START_MS + 500, SourceStatus.ERROR)
        log.saw(bad, accepted=2, rejected=1)
        await asyncio.sleep(PERIOD)
        assert shown(bad)[2] is SourceStatus.ACTIVE
        assert (log.accepted, log.rejected) == (94, 14)
        following.cancel()

    run(scenario())


def test_silent_sources_are_not_written_again_and_again(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[set[str]] = []
    monkeypatch.setattr(sources, "report", lambda seen: reports.append(set(seen)))

    async def scenario() -> None:
        log = ActivityLog(sources)
        following = asyncio.create_task(log.follow())
        log.saw("a", accepted=1, rejected=0)
        await asyncio.sleep(PERIOD + 0.1)
        log.saw("b", accepted=1, rejected=0)
        await asyncio.sleep(10 * PERIOD)
        assert reports == [{"a"}, {"a", "b"}, {"b"}]
        following.cancel()

    run(scenario())


def test_a_registry_that_is_away_does_not_end_the_reports(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = sources.create("s", SourceType.SERVER)
    report = sources.report
    failures = iter([StoreUnavailableError("away")])

    def failing(seen: dict[str, activity_module.Activity]) -> None:
        for error in failures:
            raise error
        report(seen)

    monkeypatch.setattr(sources, "report", failing)

    async def scenario() -> None:
        log = ActivityLog(sources)
        following = asyncio.create_task(log.follow())
        for _ in range(2):
            log.saw(made.source_id, accepted=1, rejected=0)
            await asyncio.sleep(PERIOD + 0.1)
        found = sources.get(made.source_id)
        assert found is not None
        assert found.last_seen_ms is not None
        following.cancel()

    run(scenario())
