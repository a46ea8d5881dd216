"""Every point × 3 seeds: SIGKILL there, start again, audit. `make test-crash`.

The regular suite plays three of them. Two cases run at a time, each in a topic and a lake of its own.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import pytest

from dc_platform.points import Point
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.crash.cases import SEEDS, Case, cases
from dc_platform_tests.crash.scene import Scene

CASES = list(cases())


class Played(NamedTuple):
    """How a case ended."""

    events: int
    findings: list[str]
    seconds: float


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Played]]]:
    """The cases that were asked for, under way."""
    root = tmp_path_factory.mktemp("crash")

    def play(case: Case) -> Played:
        begun = time.monotonic()
        directory = root / case.id
        directory.mkdir()
        scene = Scene(kafka.bootstrap, directory, case.name, case.seed)
        case.play(scene, case.seed)
        findings = scene.findings() if scene.client.acknowledged else []
        shutil.rmtree(directory / "lake")
        return Played(scene.events, findings, time.monotonic() - begun)

    wanted = [
        item.callspec.params["case"]
        for item in request.session.items
        if item.module is request.module and hasattr(item, "callspec")
    ]
    pool = ThreadPoolExecutor(2)
    yield {case.id: pool.submit(play, case) for case in wanted}
    pool.shutdown(cancel_futures=True)
    print("\n" + table())


RESULTS: dict[str, list[Played]] = {}


def table() -> str:
    """What was found, as a table in Markdown."""
    lines = [
        "| killed at | cases | events | lost | doubled | other findings |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, ended in RESULTS.items():
        events = sum(p.events for p in ended)
        found = [finding.split(":")[0] for p in ended for finding in p.findings]
        lost, doubled = found.count("lost"), found.count("doubled")
        others = len(found) - lost - doubled
        lines.append(f"| {name} | {len(ended)} | {events:,} | {lost} | {doubled} | {others} |")
    return "\n".join(lines)


def check(case: Case, played: dict[str, Future[Played]]) -> None:
    ended = played[case.id].result()
    RESULTS.setdefault(case.name, []).append(ended)
    print(f"{case.id}: {ended.events} events, {ended.seconds:.1f} s", flush=True)
    assert ended.findings == []
    assert ended.events > 0


SOME = {
    ("bronze written", 1),
    ("bronze read", 0),
    ("replay sent", 1),
    ("restore committed", 1),
}
SAMPLE = [case for case in CASES if (case.name, case.seed) in SOME]


@pytest.mark.kafka
@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.id)
def test_some_of_it(case: Case, played: dict[str, Future[Played]]) -> None:
    check(case, played)


@pytest.mark.kafka
@pytest.mark.crash
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_killed_and_started_again(case: Case, played: dict[str, Future[Played]]) -> None:
    check(case, played)


def test_the_matrix_has_every_point() -> None:
    points = {point.value for point in Point if point.part not in ("deletion", "tiers")}
    assert points <= {case.name for case in CASES}
    assert len(CASES) >= 3 * len(points)
    assert len(SEEDS) == 3
