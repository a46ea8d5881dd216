"""Backups: consistent while landing goes on, each file once, and an empty lake is filled from one."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dc_platform.backup import run
from dc_platform.backup.create import create_backup, order
from dc_platform.backup.fresh import fill, fill_registry, is_empty
from dc_platform.backup.quiet import landing_stopped
from dc_platform.backup.store import Backups
from dc_platform.backup.verify import verify
from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TABLES,
    TableSpec,
)
from dc_platform.errors import ConfigurationError, RetriableError, StoreUnavailableError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.batch_commit import epoch_of, next_offset
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.leases import Leases, landing_slot
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.settings import Settings
from dc_platform_tests.backup.test_restore import MORE
from dc_platform_tests.helpers.landing import (
    INFO,
    RECORDS,
    assert_landed_once,
    committer,
    land_again,
    lines,
    silver,
)
from dc_platform_tests.helpers.records import block


@pytest.fixture
def configured(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path / "data", backup_uri=str(tmp_path / "backups"))
    migrate(settings.registry)
    return settings


@pytest.fixture
def lake(configured: Settings) -> Lake:
    return Lake(configured.lake)


@pytest.fixture
def backups(configured: Settings) -> Backups:
    return run.backups_of(configured)


def test_an_empty_lake_is_filled_and_landing_goes_on(
    configured: Settings, lake: Lake, backups: Backups
) -> None:
    land_again(lake, RECORDS)
    made = create_backup(lake, configured.registry, backups)
    assert verify(backups, made.name) == []
    land_again(lake, [*RECORDS, *MORE])
    shutil.rmtree(lake.uri)
    done = run.restore(configured, made.name, ["silver.events"])
    assert done.filled is not None
    table = LakeTable(lake, SILVER_EVENTS)
    assert [next_offset(table, INFO, p) for p in (0, 1)] == [5, 4]
    assert epoch_of(table) == 0
    land_again(lake, [*RECORDS, *MORE])
    assert_landed_once(lake, [*RECORDS, *MORE])


@pytest.mark.parametrize("gone", [SILVER_EVENTS, BRONZE_EVENTS], ids=lambda spec: spec.name)
def test_a_table_that_is_destroyed_comes_back_from_a_backup_in_place(
    configured: Settings, lake: Lake, backups: Backups, gone: TableSpec
) -> None:
    land_again(lake, RECORDS)
    made = create_backup(lake, configured.registry, backups)
    land_again(lake, [*RECORDS, *MORE])
    shutil.rmtree(lake.uri_of(gone))
    done = run.restore(configured, made.name, ["silver.events", "bronze.events"])
    assert done.silver is not None
    assert (done.silver.rows, done.silver.epoch) == (6, 1)
    land_again(lake, [*RECORDS, *MORE])
    assert_landed_once(lake, [*RECORDS, *MORE])


def test_a_backup_is_consistent_whenever_landing_commits(
    configured: Settings, lake: Lake, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two tables a landing: bronze and quarantine are never behind silver."""
    sent = list(RECORDS)
    land_again(lake, sent)
    pinned = create_backup.__globals__["_newest"]

    def landing_goes_on(lake: Lake, spec: object) -> object:
        found = pinned(lake, spec)
        number = len(sent)
        sent.append(block(lines(100 + number), number))
        land_again(lake, sent)
        return found

    monkeypatch.setitem(create_backup.__globals__, "_newest", landing_goes_on)
    made = create_backup(lake, configured.registry, backups)
    shutil.rmtree(lake.uri)
    fill(lake, backups, made)
    offsets = {
        spec.name: next_offset(LakeTable(lake, spec), INFO, 0) or 0
        for spec in (SILVER_EVENTS, BRONZE_EVENTS)
    }
    assert offsets["bronze.events"] > offsets["silver.events"]
    land_again(lake, sent)
    assert_landed_once(lake, sent)


def test_what_a_former_backup_has_is_not_copied_again_and_goes_with_the_last(
    configured: Settings, lake: Lake, backups: Backups
) -> None:
    land_again(lake, RECORDS)
    first = create_backup(lake, configured.registry, backups)
    land_again(lake, [*RECORDS, *MORE])
    second = create_backup(lake, configured.registry, backups)
    assert [m.name for m in backups.list()] == [second.name, first.name]
    files = {t: set(c.files) for t, c in second.tables.items()}
    assert set(first.tables["silver.events"].files) < files["silver.events"]
    # One file of silver and of bronze, and the border that replaced the one before.
    assert second.new_files == 3
    backups.remove(first.name)
    assert verify(backups, second.name) == []
    backups.remove(second.name)
    assert [path for path in (backups.root / "files").rglob("*") if path.is_file()] == []


def test_only_the_newest_stay(configured: Settings, lake: Lake, backups: Backups) -> None:
    for number in range(4):
        land_again(lake, [block(lines(n), n) for n in range(number + 1)])
        made = create_backup(lake, configured.registry, backups, keep=2)
    assert [m.silver_version for m in backups.list()] == [4, 3]
    assert verify(backups, made.name) == []


def test_a_damaged_file_is_found_and_not_restored(
    configured: Settings, lake: Lake, backups: Backups
) -> None:
    land_again(lake, RECORDS)
    made = create_backup(lake, configured.registry, backups)
    path = next(iter(made.tables["silver.events"].files))
    file = backups.files("silver/events") / path
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    shutil.rmtree(lake.uri)
    file.write_bytes(content)
    assert verify(backups, made.name) == [f"silver.events: {path} has changed"]
    with pytest.raises(StoreUnavailableError, match="damaged"):
        fill(lake, backups, made)
    assert is_empty(lake)


def test_the_registry_is_copied_while_it_is_written_and_put_where_there_is_none(
    configured: Settings, lake: Lake, backups: Backups
) -> None:
    land_again(lake, RECORDS)
    sources = Sources(Database(configured.registry))
    sources.create("one", SourceType.SERVER)
    made = create_backup(lake, configured.registry, backups)
    assert made.registry == "registry.db"
    assert not fill_registry(configured.registry, backups, made), "there is one"
    for path in configured.data_dir.glob("registry.db*"):
        path.unlink()
    assert fill_registry(configured.registry, backups, made)
    with closing(sqlite3.connect(configured.data_dir / "registry.db")) as registry:
        found = registry.execute("select name from sources").fetchall()
    assert found == [("one",)]


def test_two_backups_at_a_time_are_refused_and_so_is_an_empty_lake(
    configured: Settings, lake: Lake, backups: Backups
) -> None:
    with pytest.raises(ConfigurationError, match="nothing to copy"):
        create_backup(lake, configured.registry, backups)
    land_again(lake, RECORDS)
    with backups.writing(), pytest.raises(RetriableError, match="another backup"):
        create_backup(lake, configured.registry, Backups(backups.root))


def test_what_a_restore_cannot_do_it_says(configured: Settings, lake: Lake) -> None:
    land_again(lake, RECORDS)
    for to, tables, said in (
        ("no-such-backup", ["silver.events"], "dcp backup list"),
        ("../x", ["silver.events"], "no name of a backup"),
        ("2000-01-01", ["silver.events"], "log of silver.events begins"),
        ("99", ["silver.events"], "no version 99"),
        ("0", ["ops.ledger"], "cannot be restored in place"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            run.restore(configured, to, tables)
    assert silver(lake)


def test_what_follows_from_silver_is_copied_before_it() -> None:
    places = {spec.name: order(spec) for spec in TABLES}
    assert places[SILVER_EVENTS.name] == 1
    for spec in TABLES:
        if spec.layer == "gold" or spec.name in ("ops.landing_border", "ops.ledger"):
            assert places[spec.name] == 0
    assert {places[s.name] for s in (BRONZE_EVENTS, SILVER_QUARANTINE)} == {2}


def test_a_restore_holds_the_leases_that_landing_needs(configured: Settings, lake: Lake) -> None:
    writer = committer(lake)
    writer.close()
    database = Database(configured.registry)
    leases = Leases(database)
    with landing_stopped(leases, 2, "restore-1"):
        assert {slot: lease.owner for slot, lease in leases.landing().items()} == {
            0: "restore-1",
            1: "restore-1",
        }
        assert Leases(database).acquire(landing_slot(0), "run") is None
    assert leases.landing() == {}
