"""Few rows of files: these and no others, within the bytes and the time that they may take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.rewrite import SORTED, write_rows
from dc_platform.lake.store import Lake
from dc_platform.serving import few_rows
from dc_platform.serving.few_rows import FewRows, TooLargeError, Wanted
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform_tests.helpers.lake import DAY, silver_row, silver_table

ROWS = 10_000


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    return Lake(str(tmp_path_factory.mktemp("lake")))


@pytest.fixture(scope="module")
def path(lake: Lake) -> str:
    text = f'{{"x":"{0:01000}"}}'
    rows = silver_table([silver_row(payload=text, kafka_offset=n) for n in range(ROWS)])
    file = write_rows(lake, SILVER_EVENTS, f"{SORTED}a.parquet", DAY, [rows])
    return f"{lake.uri_of(SILVER_EVENTS)}/{file.path}"


@pytest.fixture
def reader(lake: Lake) -> Iterator[FewRows]:
    made = FewRows(lake, threads=2, seconds=60)
    yield made
    made.close()


def wanted(path: str, *rows: int) -> Wanted:
    numbers = np.array(rows, np.int64)
    return Wanted(path, lambda _file, _footer: [(0, numbers)])


@pytest.mark.parametrize("rows", [(), (0,), (ROWS - 1,), (1, 2047, 2048, 2049, 9000)])
def test_the_rows_that_are_wanted_are_read(
    reader: FewRows, path: str, rows: tuple[int, ...]
) -> None:
    names = ["kafka_offset", "source_id"]
    found = reader.read([wanted(path, *rows), wanted(path)], names, most_bytes=10_000)
    assert found["kafka_offset"].to_pylist() == list(rows)
    assert found["source_id"].to_pylist() == ["s"] * len(rows)
    # Of the others there is nothing.
    assert found.schema == SILVER_EVENTS.file_schema
    assert found["payload"].null_count == len(rows)


def test_all_rows_of_a_query_share_the_room(
    reader: FewRows, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread notices what the others read, in the midst of a row group."""
    read: list[int] = []
    parts_of = few_rows._parts_of

    def parts(*asked: Any) -> Iterator[pa.RecordBatch]:
        for part in parts_of(*asked):
            read.append(len(part))
            yield part

    monkeypatch.setattr(few_rows, "_parts_of", parts)
    both = [wanted(path, *range(ROWS))] * 2
    with pytest.raises(TooLargeError):
        reader.read(both, ["payload"], most_bytes=5_000_000)
    assert sum(read) < ROWS
    assert len(reader.read(both, ["payload"], most_bytes=30_000_000)) == 2 * ROWS
    # Nobody waits for what is read after an answer.
    room = few_rows._Room(5_000_000, 60)
    room.close()
    with pytest.raises(TooLargeError):
        room.take(0)


def test_past_its_time_a_query_ends(reader: FewRows, lake: Lake, path: str) -> None:
    with pytest.raises(QueryTimeoutError):
        reader.read([wanted(path, 1)], ["payload"], most_bytes=10_000, until=0.0)
    late = FewRows(lake, threads=1, seconds=-1)
    with pytest.raises(QueryTimeoutError):
        late.read([wanted(path, 1)], ["payload"], most_bytes=10_000)
    late.close()
