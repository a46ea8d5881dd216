"""A restore beside a landing run, on a real broker: files and offsets go back, nothing is lost."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dc_platform.backup.store import Backups
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import epoch_of
from dc_platform.stack.kafka import LocalKafka
from dc_platform_tests.crash.scene import Scene
from dc_platform_tests.helpers.lake import read_table

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

_DCP = "dc_platform.cli.main"
_RUN = ["dc_platform_tests.crash.process", "run"]


@pytest.fixture
def scene(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    return Scene(kafka.bootstrap, tmp_path, request.node.name, 1)


def test_a_landing_run_makes_way_for_a_restore_and_the_next_one_lands_again(scene: Scene) -> None:
    first = scene.start([*_RUN, "first"], {})
    scene.send(300)
    scene.wait_until_landed()
    then = datetime.now(UTC).isoformat()
    before = read_table(scene.lake, SILVER_EVENTS, "source_id, event_id")
    time.sleep(0.1)
    # A third of them are events that were sent before.
    scene.send(300)
    scene.wait_until_landed()
    acknowledged = sorted(read_table(scene.lake, SILVER_EVENTS, "source_id, event_id"))
    assert len(acknowledged) > len(before)
    scene.expect([_DCP, "restore", "--to", then], 0)
    scene.wait(first, 0)
    assert sorted(read_table(scene.lake, SILVER_EVENTS, "source_id, event_id")) == sorted(before)
    second = scene.start([*_RUN, "second"], {})
    scene.wait_until_landed()
    second.terminate()
    scene.wait(second, 0)
    assert sorted(read_table(scene.lake, SILVER_EVENTS, "source_id, event_id")) == acknowledged
    assert epoch_of(LakeTable(scene.lake, SILVER_EVENTS)) == 1
    assert scene.findings() == []


def test_what_kafka_no_longer_has_comes_back_from_bronze(scene: Scene) -> None:
    scene.send(200)
    scene.land()
    version = LakeTable(scene.lake, SILVER_EVENTS).version
    scene.send(200)
    scene.land()
    scene.delete_before(dict(enumerate(scene.sent)))
    scene.send(30)
    scene.expect([_DCP, "restore", "--to", str(version)], 0)
    scene.land()
    assert scene.findings() == []


def test_an_empty_directory_is_filled_from_a_backup_and_landing_goes_on(scene: Scene) -> None:
    backups = {"DCP_BACKUP_URI": str(scene.directory / "backups")}
    scene.send(200)
    scene.land()
    scene.expect([_DCP, "backup", "create"], 0, backups)
    [made] = Backups(scene.directory / "backups").list()
    scene.send(200)
    scene.land()
    shutil.rmtree(scene.lake.uri)
    scene.expect([_DCP, "restore", "--to", made.name, "--json"], 0, backups)
    told = json.loads(scene.said().splitlines()[-1])
    assert told["filled"] == made.name
    rows = len(read_table(scene.lake, SILVER_EVENTS, "event_id"))
    assert rows == made.tables["silver.events"].rows
    scene.land()
    assert scene.findings() == []
