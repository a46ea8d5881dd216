"""What footers tell of row groups, and how many are kept."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dc_platform.lake import footers
from dc_platform.lake.footers import Footer, Footers

SOURCES = ["a", "b\0", "é", "😀", ""]
ROWS = pa.table(
    {
        "source_id": [SOURCES[n // 20] for n in range(100)],
        "event_time": pa.array(range(-50, 50), pa.timestamp("us", "UTC")),
    }
)


def written(path: Path, **options: object) -> str:
    pq.write_table(ROWS, path, row_group_size=8, **options)
    return str(path)


def test_only_row_groups_that_may_have_a_row_are_named(tmp_path: Path) -> None:
    footer = Footers().of(written(tmp_path / "a"))
    assert footer.columns == {"source_id", "event_time"}
    assert footer.starts.tolist() == [*range(0, 97, 8), 100]
    for number, source in enumerate(ROWS["source_id"].to_pylist()):
        [group] = footer.groups_with(source_id=source.encode(), event_time=number - 50)
        assert group == number // 8
    assert footer.groups_with(source_id="é".encode()) == [5, 6, 7]
    assert footer.groups_with(event_time=50) == []
    assert footer.groups_with(source_id=b"zz", event_time=-50) == []


def test_where_bounds_are_not_known_any_row_may_be_there(tmp_path: Path) -> None:
    path = written(tmp_path / "a", write_statistics=["event_time"])
    footer = Footer(pq.read_metadata(path))
    everywhere = list(range(13))
    for source in (b"", b"a", "😀".encode()):
        assert footer.groups_with(source_id=source) == everywhere
    assert footer.groups_with(source_id=b"a", event_time=0) == [6]
    none = Footer(pq.read_metadata(written(tmp_path / "b", write_statistics=False)))
    for time in (-(2**63), 0, 2**63 - 1):
        assert none.groups_with(event_time=time) == everywhere


def test_a_file_without_row_groups(tmp_path: Path) -> None:
    pq.ParquetWriter(tmp_path / "a", ROWS.schema).close()
    footer = Footers().of(str(tmp_path / "a"))
    assert footer.groups_with(source_id=b"a", event_time=0) == []
    assert footer.starts.tolist() == [0]


def test_those_that_were_asked_for_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [written(tmp_path / name) for name in "abc"]
    size = pq.read_metadata(paths[0]).serialized_size
    monkeypatch.setattr(footers, "_MOST_BYTES", 2 * size)
    kept = Footers()
    first, second = kept.of(paths[0]), kept.of(paths[1])
    assert kept.of(paths[0]) is first
    kept.of(paths[2])
    assert kept.of(paths[0]) is first
    assert kept.of(paths[1]) is not second
    kept.keep({paths[1]})
    assert kept.of(paths[0]) is not first
    with pytest.raises(OSError, match="No such file"):
        kept.of(str(tmp_path / "gone"))
