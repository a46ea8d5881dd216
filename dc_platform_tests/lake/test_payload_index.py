"""Indexes of payload fields tell every row that has a value, or nothing, and go with their file."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import duckdb
import pytest

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.cleaning import clean, remove_replaced
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.payload_index import Field, PayloadIndex, key_sql, read_index
from dc_platform.lake.rewrite import SORTED, Cancellation, write_rows
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.compaction import Compactor
from dc_platform_tests.helpers.compaction import CLOSED, OPEN, SMALL, merge
from dc_platform_tests.helpers.lake import DAY, silver_row, silver_table, write_silver
from dc_platform_tests.helpers.landing import batch, committer, lines
from dc_platform_tests.helpers.records import block

USER, PAGE = '$."userId"', '$."page"'


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path))
    made.ensure(SILVER_EVENTS)
    return made


def write(lake: Lake, texts: list[str]) -> DataFile:
    """A file of a closed hour, committed."""
    path = f"ingest_date={DAY.isoformat()}/{SORTED}{uuid.uuid4()}.parquet"
    rows = silver_table([silver_row(n, payload=text) for n, text in enumerate(texts)])
    file = write_rows(lake, SILVER_EVENTS, path, DAY, [rows])
    LakeTable(lake, SILVER_EVENTS).commit([file], txns={}, exact=True)
    return file


def beside(lake: Lake) -> list[Path]:
    return sorted(Path(lake.uri_of(SILVER_EVENTS), "_identities").glob("*.fields"))


def rows_of(field: Field, value: str) -> list[int] | None:
    [(key,)] = duckdb.execute(f"select {key_sql('$v')}", {"v": value}).fetchall()
    found = field.rows_of(key)
    return None if found is None else found.tolist()


def test_rows_of_a_value_are_told(lake: Lake) -> None:
    """In files of one block, of several, and of one value that fills some of them."""
    texts = [f'{{"userId":"u-{n % 700}","page":"p"}}' for n in range(5_000)]
    file = write(lake, [*texts, '{"page":7}', '{"page":"7.0"}', "nonsense"])
    index = PayloadIndex(lake, ["userId", "payload.page", "userId", "nobody.has"])
    assert index.lacking([file.path]) == [file.path]
    index.build(file.path)
    assert index.lacking([file.path]) == []
    found = read_index(lake, f"/anywhere/{file.path}")
    assert found is not None
    assert [len(field.entries) for field in found.values()] == [5_000, 5_002, 0]
    for number in (0, 1, 350, 699):
        assert rows_of(found[USER], f"u-{number}") == list(range(number, 5_000, 700))
    assert rows_of(found[USER], "u-700") == []
    assert rows_of(found[PAGE], "p") == list(range(5_000))
    assert rows_of(found[PAGE], "7") == rows_of(found[PAGE], "70e-1") == [5_000, 5_001]
    assert rows_of(found['$."nobody"."has"'], "p") == []
    [kept] = beside(lake)
    assert kept.stat().st_size < 8 * 10_002 * 1.05


def test_what_is_damaged_tells_nothing(lake: Lake) -> None:
    file = write(lake, [f'{{"userId":"u-{n}"}}' for n in range(3_000)])
    index = PayloadIndex(lake, ["userId"])
    index.build(file.path)
    [path] = beside(lake)
    whole = path.read_bytes()
    after_head = 16 + int.from_bytes(whole[8:12], "little")
    for place in (0, 9, 20, after_head + 3, after_head + 30):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_index(lake, file.path) is None
        assert PayloadIndex(lake, ["userId"]).lacking([file.path]) == [file.path]
    for cut in (b"", whole[:10], whole[:-1], whole + b"x"):
        path.write_bytes(cut)
        assert read_index(lake, file.path) is None
    # Entries are looked at block by block.
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    found = read_index(lake, file.path)
    assert found is not None
    unknown = [rows_of(found[USER], f"u-{n}") is None for n in range(0, 3_000, 10)]
    assert 60 < sum(unknown) < 140
    path.unlink()
    assert read_index(lake, file.path) is None


def test_other_fields_are_another_index(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(lake, ['{"userId":"u"}'])
    PayloadIndex(lake, ["userId"]).build(file.path)
    before = read_index(lake, file.path)
    both = PayloadIndex(lake, ["userId", "page"])
    assert both.lacking([file.path]) == [file.path]
    both.build(file.path)
    # Who had mapped the one before goes on with it.
    assert before is not None
    assert rows_of(before[USER], "u") == [0]
    assert both.lacking([file.path]) == []
    assert PayloadIndex(lake, []).lacking([file.path]) == [file.path]
    monkeypatch.setattr("dc_platform.lake.payload_index._probe", lambda: 5)
    assert read_index(lake, file.path) is None


def test_a_file_that_cannot_be_read_has_none_and_is_not_tried_again(lake: Lake) -> None:
    file = write(lake, ["{}"])
    lake.remove(SILVER_EVENTS, file.path)
    index = PayloadIndex(lake, ["userId"])
    index.build(file.path)
    assert (beside(lake), index.lacking([file.path])) == ([], [])
    cancelled = Cancellation()
    cancelled.cancel()
    with pytest.raises(Exception, match="cancelled"):
        index.build(write(lake, ["{}"]).path, cancelled)


def test_the_index_goes_with_its_file(lake: Lake) -> None:
    index = PayloadIndex(lake, ["userId"])
    files = [write(lake, ['{"userId":"u"}']) for _ in range(3)]
    for file in files:
        index.build(file.path)
    table = LakeTable(lake, SILVER_EVENTS)
    table.rewrite([files[0].path], write_silver(lake, [silver_row(1)]), metadata={})
    # Of an older version somebody may still ask.
    clean(lake, SILVER_EVENTS, keep=100)
    assert len(beside(lake)) == 3
    assert remove_replaced(lake, SILVER_EVENTS) == 1
    assert len(beside(lake)) == 2
    # One that was written when its file had just gone stays no longer than until the next look.
    lake.remove(SILVER_EVENTS, files[1].path)
    clean(lake, SILVER_EVENTS, keep=100)
    assert [path.name.removesuffix(".fields") for path in beside(lake)] == [
        Path(files[2].path).name
    ]


def test_the_compactor_indexes_what_stays(lake: Lake) -> None:
    writer = committer(lake, (0,))
    for n in range(3):
        writer.land(batch([block(lines(n * 10, n * 10 + 9), n)]))

    def compact(now: float, *fields: str) -> list[str]:
        made = Compactor(
            lake,
            SMALL,
            writer.identity_files,
            log_commits=100_000,
            keep_seconds=3600,
            indexed_fields=fields,
            clock=lambda: now,
        )
        until = time.monotonic() + 60
        while merge(made, writer) and time.monotonic() < until:
            pass
        made.close()
        live = LakeTable(lake, SILVER_EVENTS).snapshot().paths
        return [path for path in live if read_index(lake, path) is not None]

    assert compact(OPEN, "n") == []
    assert compact(CLOSED) == []
    assert beside(lake) == []
    # What is there already is found by another run.
    assert len(compact(CLOSED, "n")) == 1
    assert len(compact(CLOSED, "n", "m")) == 1
    found = read_index(lake, LakeTable(lake, SILVER_EVENTS).snapshot().paths[0])
    assert found is not None
    assert list(found) == ['$."n"', '$."m"']
    writer.close()
