"""Identities that are read before the first batch is there: as those that it asks for, only sooner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dc_platform.errors import StoreUnavailableError
from dc_platform.landing import identities
from dc_platform.landing.identities import IdentityIndex
from dc_platform.landing.keys import Keys
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.identities import Files, Row, index, keys_of, scopes_of

OLD: list[Row] = [("s", some_uuid(number), 1) for number in range(100)]
NEWEST: list[Row] = [("s", some_uuid(number), number % 3) for number in range(100, 200)]
LATER: list[Row] = [("s", some_uuid(number), 2) for number in range(200, 250)]
NEVER: list[Row] = [("s", some_uuid(number), number % 5) for number in range(900, 950)]


class Reads:
    """Which files an index has read, in order."""

    def __init__(self, of: IdentityIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: list[str] = []
        self.fails = False
        read = of.read

        def counted(paths: list[str], scopes: np.ndarray | None = None) -> Iterator[Keys]:
            self.paths += paths
            if self.fails:
                raise StoreUnavailableError("the store is away")
            return read(paths, scopes)

        monkeypatch.setattr(of, "read", counted)


def check(of: IdentityIndex, files: Files) -> None:
    rows = files.rows() + NEVER
    known = of.known(keys_of(rows), scopes_of(rows), files.snapshot())
    assert known.tolist() == [True] * len(files.rows()) + [False] * len(NEVER)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.write(OLD)
    made.write(NEWEST)
    return made


def test_what_the_newest_file_has_scopes_of_is_read_once(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = index()
    reads = Reads(made, monkeypatch)
    made.read_ahead(files.snapshot())
    assert len(made) == len(OLD + NEWEST)
    assert sorted(reads.paths) == sorted(files.snapshot().paths)
    reads.paths.clear()
    known = made.known(keys_of(NEWEST), scopes_of(NEWEST), files.snapshot())
    assert known.all()
    assert not reads.paths
    check(made, files)


def test_what_came_since_is_read_before_the_first_look_up(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = index()
    made.read_ahead(files.snapshot())
    reads = Reads(made, monkeypatch)
    path = files.write(LATER)
    known = made.known(keys_of(LATER), scopes_of(LATER), files.snapshot())
    assert known.all()
    assert reads.paths == [path]
    check(made, files)


@pytest.mark.parametrize("limit", [10, 150])
def test_what_is_too_much_for_memory_is_left_to_the_look_up(files: Files, limit: int) -> None:
    made = index(limit)
    made.read_ahead(files.snapshot())
    assert not len(made)
    check(made, files)


def test_more_than_the_batch_may_need_is_not_read(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = index()
    reads = Reads(made, monkeypatch)
    monkeypatch.setattr(identities, "_MOST_READ_AHEAD", len(OLD + NEWEST) - 1)
    made.read_ahead(files.snapshot())
    assert not reads.paths
    check(made, files)


def test_a_merged_file_does_not_say_what_comes_next(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = files.write(LATER)
    name = merged.rsplit("/", 1)[1]
    renamed = name.removeprefix("part-")
    (files.root / name).rename(files.root / renamed)
    files.files[-1] = (renamed, LATER)
    assert files.snapshot().landed_last == files.snapshot().paths[1]
    files.files = files.files[-1:]
    assert files.snapshot().landed_last is None
    made = index()
    reads = Reads(made, monkeypatch)
    made.read_ahead(files.snapshot())
    assert not reads.paths
    check(made, files)


def test_a_store_that_is_away_is_asked_again(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    made = index()
    reads = Reads(made, monkeypatch)
    reads.fails = True
    made.read_ahead(files.snapshot())
    reads.fails = False
    check(made, files)


def test_a_table_without_files_has_nothing_to_read(tmp_path: Path) -> None:
    made = index()
    files = Files(tmp_path)
    made.read_ahead(files.snapshot())
    files.write(OLD)
    check(made, files)
