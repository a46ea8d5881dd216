"""Gold by dbt on DuckDB is what plain counting gives: whatever came, came late, was merged or went."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from dc_platform.contracts.gold import DBT_TABLES
from dc_platform.gold import project
from dc_platform.gold.dbt import AuditError
from dc_platform.gold.run import keep_gold, rebuild_all, rebuild_hours
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform_tests.gold.lakes import delete, land, merge, new_lake, reject, rows
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.gold import expected, files, gold
from dc_platform_tests.helpers.lake import silver_row


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dbt's parsed project, which the tests of this file share."""
    return tmp_path_factory.mktemp("cache")


def test_gold_follows_silver(tmp_path: Path, cache: Path) -> None:
    lake = new_lake(tmp_path)
    chosen = random.Random(1)
    land(lake, rows(chosen, 0, 600, wild=True))
    land(lake, [silver_row(n, event_type=f"type {n}") for n in range(1000, 1120)])
    reject(lake, [NOW, NOW + 1, NOW + 100 * HOUR])
    reject(lake, [NOW], source=None)
    first = keep_gold(lake, cache)
    assert first.everything
    assert all(outcome.good for outcome in first.outcomes)
    assert gold(lake) == expected(lake)

    # Nothing is pending; compaction is no news; hours built anew by hand change no byte.
    before, at = files(lake), versions_of(lake)
    assert not keep_gold(lake, cache).days
    merge(lake)
    assert not keep_gold(lake, cache).days
    again = rebuild_hours(lake, cache, NOW // HOUR - 1, NOW // HOUR)
    assert again.days
    assert again.rows == 0
    assert files(lake) == before
    assert versions_of(lake) == at

    # Events of an hour that was closed long ago, and some that leave silver: those hours alone.
    land(lake, rows(chosen, 2000, 5))
    delete(lake, lambda row: int(row["kafka_offset"]) % 7 == 0)
    reject(lake, [NOW - 24 * HOUR])
    done = keep_gold(lake, cache)
    assert not done.everything
    assert done.hours >= 5
    assert gold(lake) == expected(lake)


def versions_of(lake: Lake) -> list[int]:
    return [LakeTable(lake, spec).version for spec in DBT_TABLES]


def test_an_hour_by_hand_takes_along_what_its_day_lacks(tmp_path: Path, cache: Path) -> None:
    """Else the day would have users of an hour that it does not have."""
    lake = new_lake(tmp_path)
    land(lake, [silver_row(1, payload='{"userId":1}')])
    keep_gold(lake, cache)
    later = (NOW + HOUR) * 1000
    land(lake, [silver_row(n, event_time=later, payload=f'{{"userId":{n}}}') for n in (2, 3)])
    assert rebuild_hours(lake, cache, NOW // HOUR, NOW // HOUR).hours == 2
    assert gold(lake) == expected(lake)


def test_an_hour_that_loses_its_rows_leaves_gold(tmp_path: Path, cache: Path) -> None:
    lake = new_lake(tmp_path)
    land(lake, [silver_row(1), silver_row(2, event_time=(NOW + 50 * HOUR) * 1000)])
    keep_gold(lake, cache)
    delete(lake, lambda row: int(row["kafka_offset"]) == 2)
    keep_gold(lake, cache)
    assert gold(lake) == expected(lake)
    assert [len(found) for found in gold(lake).values()] == [1, 1, 1]


@pytest.mark.lakehouse
@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_dbt_gives_what_counting_gives(
    tmp_path: Path, cache: Path, seed: int
) -> None:
    lake, chosen = new_lake(tmp_path), random.Random(seed)
    land(lake, rows(chosen, 0, 300, wild=True))
    for number in range(1, 12):
        step = chosen.choice(("land", "land", "merge", "delete", "reject", "gold"))
        if step == "land":
            land(lake, rows(chosen, number * 1000, chosen.randrange(1, 400), wild=True))
        elif step == "merge":
            merge(lake)
        elif step == "delete":
            rest = chosen.randrange(5)
            delete(lake, lambda row, rest=rest: int(row["kafka_offset"]) % 5 == rest)  # type: ignore[misc]
        elif step == "reject":
            reject(lake, [NOW + chosen.randrange(-40, 40) * HOUR])
        else:
            keep_gold(lake, cache)
            assert gold(lake) == expected(lake)
    keep_gold(lake, cache)
    assert gold(lake) == expected(lake)
    assert rebuild_all(lake, cache).rows == 0


def test_a_scratch_directory_that_a_killed_run_left_goes(tmp_path: Path, cache: Path) -> None:
    left = cache / "scratch-4194304-dead"
    left.mkdir()
    keep_gold(new_lake(tmp_path), cache)
    assert not left.exists()


def test_what_a_test_refuses_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "dbt_project"
    shutil.copytree(project.project_directory(), broken)
    model = broken / "models" / "gold" / "events_hourly.sql"
    model.write_text(
        model.read_text().replace("count(*) as row_count", "count(*) + 1 as row_count")
    )
    monkeypatch.setattr("dc_platform.gold.dbt.project_directory", lambda: broken)
    lake = new_lake(tmp_path)
    land(lake, [silver_row(1)])
    with pytest.raises(AuditError, match="events_hourly_agrees_with_silver"):
        keep_gold(lake, tmp_path / "cache")
    assert versions_of(lake) == [0, 0, 0]
    assert files(lake) == {}


def test_other_models_build_everything_anew(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = new_lake(tmp_path)
    land(lake, [silver_row(1)])
    keep_gold(lake, cache)
    monkeypatch.setattr("dc_platform.gold.pending.models_hash", lambda: "others")
    monkeypatch.setattr("dc_platform.gold.run._ROWS_AT_ONCE", 1)
    land(lake, [silver_row(2, event_time=(NOW + 24 * HOUR) * 1000)])
    done = rebuild_all(lake, cache)
    assert len(done.days) == 2
    assert gold(lake) == expected(lake)
    assert not keep_gold(lake, cache).days
