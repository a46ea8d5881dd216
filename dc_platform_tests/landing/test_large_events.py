"""Replay and backfill hold a piece of the events, however large these are and however many."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing import backfill, backfill_rows, pieces
from dc_platform.landing.backfill import backfill_silver
from dc_platform.landing.pieces import bronze_rows
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.landing import CLOCK, batch, committer
from dc_platform_tests.helpers.records import block, gateway_line

DAY = CLOCK.date()
MB = 2**20


def land_large(lake: Lake, *, events: int, size: int, files: int) -> None:
    """Batches of ten blocks of one partition each."""

    def line(number: int) -> bytes:
        event_id = some_uuid(number).encode()
        payload = b"%d" % number + b"x" * size
        return gateway_line(
            b'{"eventId":"%s","eventType":"t","timestamp":%d,"payload":{"a":"%s"}}'
            % (event_id, NOW, payload)
        )

    writer = committer(lake, (0,))
    for file in range(files):
        offsets = range(file * 10, file * 10 + 10)
        records = [block([line(o * events + i) for i in range(events)], o) for o in offsets]
        writer.land(batch(records))
    writer.close()


def content(lake: Lake) -> list[tuple[object, ...]]:
    return read_table(lake, SILVER_EVENTS, "* exclude (processed_at)")


def test_pieces_are_cut_by_bytes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_BYTES", MB)
    land_large(lake, events=3, size=50_000, files=3)
    found = list(bronze_rows(LakeTable(lake, BRONZE_EVENTS), "true"))
    assert sum(map(len, found)) == 90
    a_record = 3 * 51_000
    assert len(found) >= 90 * 50_000 // MB
    assert max(piece.nbytes for piece in found) < MB + a_record + 30 * 1_000
    offsets = [offset for piece in found for offset in piece["kafka_offset"].unique().to_pylist()]
    assert offsets == list(range(30)), "in order, and no record in two pieces"


def test_files_of_a_backfill_are_cut_by_bytes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    land_large(lake, events=3, size=50_000, files=3)
    before = content(lake)
    LakeTable(lake, SILVER_EVENTS).replace(DAY, [], metadata={})
    monkeypatch.setattr(pieces, "_BYTES", MB // 2)
    monkeypatch.setattr(backfill_rows, "_FILE_BYTES", MB)
    assert backfill_silver(lake, DAY).added == 90
    rows = LakeTable(lake, SILVER_EVENTS).snapshot().actions["num_records"].to_pylist()
    assert sum(rows) == 90
    assert max(rows) * 50_000 < 2 * MB
    assert content(lake) == before


def test_a_day_of_large_events_passes_through_little_memory(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """160 MB of events on either side, through 150 MB that DuckDB may take."""
    land_large(lake, events=20, size=100_000, files=8)
    monkeypatch.setattr(backfill, "_MEMORY", "150MB")
    monkeypatch.setattr(pieces, "_MEMORY", "150MB")
    monkeypatch.setattr(pieces, "_BYTES", 8 * MB)
    before = content(lake)
    assert backfill_silver(lake, DAY).version is None
    LakeTable(lake, SILVER_EVENTS).replace(DAY, [], metadata={})
    assert backfill_silver(lake, DAY).added == 1_600
    assert content(lake) == before


_REPLAY = """
import resource, sys
from dc_platform.lake.store import Lake
from dc_platform.landing.rebuild import replay_bronze
from dc_platform_tests.helpers.landing import INFO, committer
lake = Lake(sys.argv[1])
run = committer(lake, (0,), begin=False)
run.begin({0: 1000})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batches = 0
for batch in replay_bronze(lake, INFO, run, kafka_begins={0: 1000}):
    run.land(batch)
    batches += 1
print(batches, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_replay_holds_a_piece_at_a_time(lake: Lake, tmp_path: Path) -> None:
    """400 MB that Kafka has lost; of 600 MB in one piece 3,400 MB were held."""
    land_large(lake, events=100, size=100_000, files=4)
    shutil.rmtree(lake.uri_of(SILVER_EVENTS))
    folder = tmp_path / "working directory"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _REPLAY, lake.uri],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    batches, grown_mb = map(int, done.stdout.split())
    assert batches >= 11
    assert grown_mb < 1_200
    assert LakeTable(lake, SILVER_EVENTS).snapshot().rows == 4_000
    assert list(folder.iterdir()) == [], "nothing is spilled into the working directory"
