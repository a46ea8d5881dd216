"""Identity files give back what was kept, or nothing: never something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.store import Lake

MARK = b"0123456789abcdef"
DATA = "ingest_date=2026-11-23/part-1.parquet"
Row = tuple[int, int, int]

rows_of_a_file = st.lists(
    st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(-3, 5)), max_size=40
)


def keep(files: IdentityFiles, rows: list[Row]) -> None:
    high, low, scopes = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 3
    words = (np.array(word, np.uint64) for word in (high, low))
    files.write(DATA, *words, np.array(scopes, np.int64))


def found(files: IdentityFiles, wanted: list[int] | None) -> list[Any] | None:
    scopes = None if wanted is None else np.array(wanted, np.int64)
    words = files.read(f"/somewhere/else/{DATA}", scopes)
    if words is None:
        return None
    high, low = words.high.tolist(), words.low.tolist()
    assert high == sorted(high)
    return sorted(zip(high, low, strict=True))


@given(rows_of_a_file, st.none() | st.sets(st.integers(-4, 6)))
def test_what_was_kept_comes_back_by_scope(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], wanted: set[int] | None
) -> None:
    files = IdentityFiles(Lake(str(tmp_path_factory.mktemp("lake"))), SILVER_EVENTS, MARK)
    keep(files, rows)
    expected = sorted((h, low) for h, low, s in rows if wanted is None or s in wanted)
    assert found(files, None if wanted is None else sorted(wanted)) == expected


ROWS: list[Row] = [(n * 7, n * 11, n % 3) for n in range(20)]


def test_what_is_missing_cut_damaged_or_of_another_table_is_left_aside(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    files = IdentityFiles(lake, SILVER_EVENTS, MARK)
    assert found(files, None) is None
    keep(files, ROWS)
    (path,) = (tmp_path / SILVER_EVENTS.path / "_identities").iterdir()
    whole = path.read_bytes()
    assert found(files, None) is not None
    assert found(IdentityFiles(lake, SILVER_EVENTS, b"f" * 16), None) is None
    for cut in (0, 5, 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert found(files, None) is None
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert found(files, None) is None
    path.write_bytes(whole)
    files.remove(DATA)
    assert found(files, None) is None


def test_a_store_without_room_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lake = Lake(str(tmp_path))

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lake, "output", full)
    files = IdentityFiles(lake, SILVER_EVENTS, MARK)
    keep(files, ROWS)
    assert "No space left" in caplog.text
    assert found(files, None) is None
