"""Several landers without a lease: two at once, and one that was frozen and woken after its successor
had committed. Real processes; whoever is late is fenced, and each event is there once.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from random import Random
from subprocess import Popen

import pytest

from dc_platform.landing.lander import Ended, Lander
from dc_platform_tests.faults.scene import Scene, Sender, ids, wait_stopped, wake
from dc_platform_tests.helpers.landing import POINTS, in_thread
from dc_platform_tests.stack.harness import wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

BEFORE_THE_COMMIT = ("polled", *POINTS[:-1])


def freeze_and_wake(scene: Scene, point: str) -> str:
    """How a lander ends that slept through its successor's commits."""
    first, second, third = ids(40), ids(30), ids(20)
    producer = scene.producer()
    producer.send(scene.topic, b"poison", partition=0)
    producer.close()
    for part, partition in ((first, 0), (second, 1)):
        scene.send(part, partition=partition)
    command = [sys.executable, "-m", "dc_platform_tests.faults.frozen", point]
    with scene.landing(command, name="zombie") as zombie:
        wait_stopped(zombie)
        scene.send(third, partition=0)
        scene.land()
        scene.assert_exact(first + second + third)
        wake(zombie)
        assert zombie.wait(60) == 0
        scene.assert_exact(first + second + third)
    scene.land()
    scene.assert_exact(first + second + third)
    assert len(scene.rejected()) == 1
    return scene.log_of("zombie").read_text().splitlines()[-1]


def test_a_lander_woken_in_the_middle_of_a_commit_is_fenced(scene: Scene) -> None:
    assert freeze_and_wake(scene, "silver written") == Ended.FENCED


@pytest.mark.faults
@pytest.mark.parametrize("point", [p for p in BEFORE_THE_COMMIT if p != "silver written"])
def test_a_lander_woken_anywhere_before_its_commit_is_fenced(scene: Scene, point: str) -> None:
    assert freeze_and_wake(scene, point) == Ended.FENCED


@pytest.mark.faults
def test_a_lander_woken_after_its_commit_does_no_harm(scene: Scene) -> None:
    assert freeze_and_wake(scene, "after silver") in (Ended.FENCED, Ended.CAUGHT_UP)


def test_of_two_landers_at_once_one_is_fenced(scene: Scene) -> None:
    sent = ids(400)
    for partition in (0, 1):
        scene.send(sent[partition::2], partition=partition)
    together = threading.Barrier(2)

    def reached(name: str, seen: list[str]) -> None:
        if name == "before bronze" and not seen:
            seen.append(name)
            together.wait(60)

    runs = []
    for number in (0, 1):
        lander = Lander(
            scene.settings(),
            sources=None,
            owner=f"run-{number}",
            reached=partial(reached, seen=[]),
        )
        runs.append(in_thread(partial(lander.run, threading.Event(), until_caught_up=True)))
    for thread, _ in runs:
        thread.join(60)
    ended = sorted(str(result[0]) for _, result in runs)
    assert ended == [Ended.CAUGHT_UP, Ended.FENCED]
    scene.assert_exact(sent)


@pytest.mark.faults
def test_landers_frozen_at_any_moment_and_woken_after_others_landed(scene: Scene) -> None:
    rng = Random(5)
    with Sender(scene, pause=0.005) as sender, ExitStack() as all_of_them:

        def another(number: int) -> Popen[bytes]:
            version = scene.version()
            started = all_of_them.enter_context(scene.landing(name=f"land-{number}"))
            wait_for(lambda: scene.version() > version or started.poll() is not None, 90)
            return started

        landing = another(0)
        for number in range(1, 7):
            time.sleep(rng.random())
            landing.send_signal(signal.SIGSTOP)
            successor = another(number)
            wake(landing)
            # The one that is late ends; mostly the one that was frozen.
            wait_for(lambda both=(landing, successor): any(p.poll() is not None for p in both))
            late, landing = sorted((landing, successor), key=lambda p: p.poll() is None)
            assert late.returncode == 1
            assert landing.poll() is None
        logs = "".join(scene.log_of(f"land-{n}").read_text() for n in range(7))
        assert logs.count("another writer") == 6, logs
        sent = sender.end()
    done = scene.finish()
    assert done.returncode == 0, done.stderr
    scene.assert_exact(sent)
