"""Pieces of the tail as files: written once, gone with the piece."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dc_platform.errors import StoreUnavailableError
from dc_platform.lake.store import Lake
from dc_platform.lake.table import Snapshot
from dc_platform.serving.tail_files import TailFiles, mapped
from dc_platform.serving.view import SCHEMA, View
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.serving import chunk, view
from dc_platform_tests.serving.conftest import lines


def nothing() -> Snapshot:
    return Snapshot(0, pa.table({"path": pa.array([], pa.string())}), "/nowhere")


def test_a_chunk_is_written_once_and_its_file_goes_with_it(tmp_path: Path) -> None:
    files = TailFiles(tmp_path)
    first, second = chunk([block(lines(0, 5), 0)]), chunk([block(lines(5, 7), 1)])
    [one] = files.of(View(nothing(), {}, (first,)))
    at = Path(one).stat()
    both = files.of(View(nothing(), {}, (first, second)))
    assert both[0] == one
    assert (Path(one).stat().st_ino, Path(one).stat().st_mtime_ns) == (at.st_ino, at.st_mtime_ns)
    rows = mapped(both)
    assert rows.schema == SCHEMA
    del first
    assert [str(path) for path in tmp_path.iterdir()] == both[1:]
    # Who has it mapped has its rows.
    assert len(rows["event_id"].unique()) == 7


def test_spilled_chunks_are_files_already(tmp_path: Path) -> None:
    seen = view(Lake(str(tmp_path)), [], [[block(lines(0, 3), 0)]], spill=tmp_path / "tail")
    assert TailFiles(tmp_path / "tail").of(seen) == []


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")
def test_without_room_it_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dc_platform.serving.tail_files.tempfile.mkstemp", full)
    files = TailFiles(tmp_path)
    piece = chunk([block(lines(0, 5), 0)])
    [path] = files.of(View(nothing(), {}, (piece,)))
    module = "dc_platform.serving.tail_files"
    reading = f"import sys; from {module} import mapped; print(len(mapped(sys.argv[1:])))"
    found = subprocess.run([sys.executable, "-c", reading, path], capture_output=True, check=True)
    assert found.stdout == b"5\n"
    del piece
    assert not Path(path).exists()


def test_without_room_and_without_such_files_it_is_the_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dc_platform.serving.tail_files.pa.ipc.new_file", full)
    monkeypatch.delattr("os.memfd_create", raising=False)
    files = TailFiles(tmp_path)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        files.of(View(nothing(), {}, (chunk([block(lines(0, 5), 0)]),)))
    assert list(tmp_path.iterdir()) == []
