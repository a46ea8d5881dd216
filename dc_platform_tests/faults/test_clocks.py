"""The clock of a landing process jumps, back and forth, between its commits and within them: nothing is
lost or doubled, whatever day the rows are filed under.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import libfaketime
import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake import audit, audit_identities
from dc_platform_tests.faults.scene import Scene, Sender
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.stack.harness import wait_for

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(300)]


class Clock:
    """The clock of a process that got `environment`, moved while it runs. Waits are not changed."""

    def __init__(self, directory: Path) -> None:
        _, additions = libfaketime.get_reload_information()
        self._file = directory / "clock"
        self.environment = {
            **additions,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # librdkafka's threads wait by the true clock for a time of the moved one.
            "DCP_KAFKA_CLIENT": "kafka-python",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set(hours=0)

    def set(self, *, hours: float) -> None:
        """Ahead of the true time, or behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours * 3600:+.0f}s\n")
        new.replace(self._file)


def test_landing_whose_clock_jumps_by_days_lands_each_event_once(scene: Scene) -> None:
    clock = Clock(scene.directory)
    environment = {**clock.environment, "DCP_LANDING_FRESHNESS_SECONDS": "0.2"}
    with (
        Sender(scene, pause=0.005) as sender,
        scene.landing(environment=environment) as lander,
    ):
        for hours in (0, 24, -24, 0, 48, -2, 24 * 40, 0):
            clock.set(hours=hours)
            version = scene.version()
            wait_for(lambda version=version: scene.version() >= version + 4)
        assert lander.poll() is None, scene.log_of("land").read_text()
        lander.terminate()
        assert lander.wait(60) == 0
        sent = sender.end()
    # A successor whose clock is a day behind, and a retry of everything.
    scene.send(sent, partition=1)
    clock.set(hours=-24)
    done = scene.finish(**clock.environment)
    assert done.returncode == 0, done.stderr
    scene.assert_exact(sent)
    days = {row[0] for row in read_table(scene.lake, SILVER_EVENTS, "distinct ingest_date")}
    now = datetime.now(UTC)
    assert (now + timedelta(days=40)).date() in days, "the clock did not move"
    assert (now - timedelta(days=1)).date() in days
    first = (now - timedelta(days=3)).date()
    for find in (
        audit_identities.repeated_identities,
        audit_identities.missing_events,
        audit.incomplete_blocks,
    ):
        assert find(scene.lake, first).number == 0
    assert len(read_table(scene.lake, BRONZE_EVENTS, "kafka_offset")) == 2 * len(sent)
