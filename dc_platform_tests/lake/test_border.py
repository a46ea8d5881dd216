"""The border that Trino reads: one row per partition, replaced by each landing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dc_platform.contracts.ops_tables import LANDING_BORDER
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.border import write_border
from dc_platform.lake.cleaning import expire_log
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform_tests.helpers.lake import read_table

COLUMNS = "topic_id, kafka_partition, next_offset, silver_version"


def test_a_border_replaces_the_one_before(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.ensure(LANDING_BORDER)
    write_border(LakeTable(lake, LANDING_BORDER), "t", {0: 5, 1: 7}, 3)
    write_border(LakeTable(lake, LANDING_BORDER), "t", {0: 9, 1: 7}, 4)
    assert read_table(lake, LANDING_BORDER, COLUMNS) == [("t", 0, 9, 4), ("t", 1, 7, 4)]
    assert len(LakeTable(lake, LANDING_BORDER).snapshot().paths) == 1


def test_a_border_never_goes_back(tmp_path: Path) -> None:
    """A slot that was slow publishes the older version of silver after a quick one."""
    lake = Lake(str(tmp_path))
    lake.ensure(LANDING_BORDER)
    write_border(LakeTable(lake, LANDING_BORDER), "t", {0: 9, 1: 7}, 4)
    write_border(LakeTable(lake, LANDING_BORDER), "t", {0: 5, 1: 7}, 3)
    assert read_table(lake, LANDING_BORDER, COLUMNS) == [("t", 0, 9, 4), ("t", 1, 7, 4)]
    # One that does not know of partition 1 yet.
    write_border(LakeTable(lake, LANDING_BORDER), "t", {0: 12}, 5)
    assert read_table(lake, LANDING_BORDER, COLUMNS) == [("t", 0, 12, 5), ("t", 1, 7, 5)]


def test_a_slot_that_was_quiet_for_long_publishes_again(tmp_path: Path) -> None:
    """Its version has left the log, and its border's file is gone."""
    lake = Lake(str(tmp_path))
    lake.ensure(LANDING_BORDER)
    quiet, busy = (LakeTable(lake, LANDING_BORDER) for _ in range(2))
    write_border(quiet, "t", {0: 1}, 1)
    [old] = quiet.snapshot().paths
    for version in range(2, 60):
        write_border(busy, "t", {0: version}, version)
    assert expire_log(lake, LANDING_BORDER, keep=5)
    Path(old).unlink()
    write_border(quiet, "t", {1: 7}, 60)
    assert read_table(lake, LANDING_BORDER, COLUMNS) == [("t", 0, 59, 60), ("t", 1, 7, 60)]


def test_of_several_writers_the_newest_version_stands(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.ensure(LANDING_BORDER)
    with ThreadPoolExecutor(4) as writers:
        list(
            writers.map(
                lambda v: write_border(LakeTable(lake, LANDING_BORDER), "t", {0: v, 1: 2 * v}, v),
                range(1, 25),
            )
        )
    assert read_table(lake, LANDING_BORDER, COLUMNS) == [("t", 0, 24, 24), ("t", 1, 48, 24)]


def test_a_table_that_is_not_there_is_the_stores_fault(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        write_border(LakeTable(Lake(str(tmp_path)), LANDING_BORDER), "t", {0: 1}, 1)


def test_the_borders_of_other_topics_stay(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.ensure(LANDING_BORDER)
    write_border(LakeTable(lake, LANDING_BORDER), "old", {0: 5, 1: 7}, 3)
    write_border(LakeTable(lake, LANDING_BORDER), "new", {0: 1}, 4)
    write_border(LakeTable(lake, LANDING_BORDER), "new", {0: 2}, 5)
    rows = sorted(read_table(lake, LANDING_BORDER, COLUMNS))
    assert rows == [("new", 0, 2, 5), ("old", 0, 5, 3), ("old", 1, 7, 3)]
    assert len(LakeTable(lake, LANDING_BORDER).snapshot().paths) == 1
