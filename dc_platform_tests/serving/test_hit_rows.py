"""The rows of hits, out of files of every kind: all of them, and few others are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from dc_platform.contracts.fields import QueryError
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import StoreUnavailableError
from dc_platform.lake import rewrite
from dc_platform.lake.parquet import write_file
from dc_platform.lake.rewrite import Cancellation, merge_files, write_rows
from dc_platform.lake.store import Lake
from dc_platform.search.analysis import identity_of
from dc_platform.search.index import Hit
from dc_platform.serving import few_rows, hit_rows
from dc_platform.serving.hit_rows import HitRows
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.lake import DAY, older, silver_row, silver_table, write_silver

SOURCES = [f"source-{n:02}" for n in range(20)] + ["é", "😀"]
NAMES = ["event_id", "source_id", "payload", "flags"]
GROUP_ROWS = 20
Row = dict[str, Any]


def rows(count: int = 600, seed: int = 1) -> list[Row]:
    """Of two hours, in blocks of ten; many have the same time, some the same source and time, too."""
    random = Random(seed)
    return [
        silver_row(
            seed * 1000 + n,
            source_id=random.choice(SOURCES),
            event_time=(NOW + random.randrange(100) * 72_000) * 1000,
            payload=f'{{"n":{seed * 1000 + n}}}',
            kafka_offset=n // 10,
            kafka_index=n % 10,
        )
        for n in range(count)
    ]


def hit(row: Row) -> Hit:
    place = (row["kafka_partition"], row["kafka_offset"], row["kafka_index"])
    identity = identity_of(row["source_id"], row["event_id"])
    return Hit(row["event_time"], identity, *place, 1, row["source_id"])


class Files:
    """The same rows in a file of each kind."""

    def __init__(self, directory: Path) -> None:
        self.lake = Lake(str(directory))
        self.rows = rows()
        landed = write_silver(self.lake, self.rows).path
        old = older(SILVER_EVENTS)
        table = silver_table(self.rows).select(old.file_schema.names)
        self.paths = {
            "landed": landed,
            "sorted": self._merged(landed, ordered=True),
            "merged": self._merged(landed, ordered=False),
            "older": write_file(self.lake, old, table, partition=DAY).path,
        }

    def _merged(self, path: str, *, ordered: bool) -> str:
        cancelled = Cancellation()
        merged = merge_files(
            self.lake, SILVER_EVENTS, [path], DAY, ordered=ordered, cancelled=cancelled
        )
        return merged.path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewrite, "KEPT_GROUP_ROWS", GROUP_ROWS)
        return Files(tmp_path_factory.mktemp("lake"))


@pytest.fixture(scope="module")
def reader(files: Files) -> Any:
    made = HitRows(files.lake, threads=2, seconds=60)
    yield made
    made.close()


def found(table: pa.Table) -> list[tuple[str, str, str]]:
    assert table.column_names == SILVER_EVENTS.file_schema.names
    columns = (table[name].to_pylist() for name in NAMES[:3])
    return sorted(zip(*columns, strict=True))


def expected(some: Sequence[Row]) -> list[tuple[str, str, str]]:
    return sorted((row["event_id"], row["source_id"], row["payload"]) for row in some)


@pytest.mark.parametrize("kind", ["landed", "sorted", "merged", "older"])
def test_the_rows_of_hits_are_read(files: Files, reader: HitRows, kind: str) -> None:
    random = Random(5)
    for count in (1, 2, 20, 101, 600):
        some = random.sample(files.rows, count)
        table = reader.read({files.paths[kind]: [hit(row) for row in some]}, NAMES)
        # At the place of one in time and of another one in offset there may be others.
        assert set(found(table)) >= set(expected(some))
        assert len(set(found(table))) == len(table)
        if count == 1:
            assert found(table) == expected(some)


def test_hits_of_several_files_at_once(files: Files, reader: HitRows) -> None:
    kinds = list(files.paths)
    hits = {files.paths[kind]: [hit(files.rows[n])] for n, kind in enumerate(kinds)}
    assert found(reader.read(hits, NAMES)) == expected(files.rows[: len(kinds)])
    assert len(reader.read({}, NAMES)) == 0


def test_of_a_file_in_order_few_row_groups_are_looked_at(
    files: Files, reader: HitRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    rows_of = hit_rows._rows_of

    def looked(group: int, *more: Any) -> Any:
        read.append(group)
        return rows_of(group, *more)

    monkeypatch.setattr(hit_rows, "_rows_of", looked)
    some = files.rows[::7]
    for row in some:
        reader.read({files.paths["sorted"]: [hit(row)]}, NAMES)
    # Of thirty. A source at the end of one may go on in the next, and one with the end of an hour and
    # the beginning of the next may have any of both.
    assert len(some) <= len(read) <= 3 * len(some)


@pytest.mark.parametrize("kind", ["sorted", "landed"])
def test_what_the_file_has_not_is_not_found(files: Files, reader: HitRows, kind: str) -> None:
    row = files.rows[100]
    for change in (
        {"event_time": row["event_time"] + 1},
        {"event_time": -(2**61)},
        {"kafka_offset": 10**9},
        {"kafka_index": 77},
    ):
        assert len(reader.read({files.paths[kind]: [hit({**row, **change})]}, NAMES)) == 0


def test_a_file_that_is_gone_or_damaged_is_told_of(files: Files, reader: HitRows) -> None:
    some = rows(20, seed=2)
    for damage in ("gone", "cut off"):
        path = write_silver(files.lake, some).path
        full = Path(files.lake.uri_of(SILVER_EVENTS)) / path
        reader.read({path: [hit(some[0])]}, NAMES)
        if damage == "gone":
            full.unlink()
        else:
            full.write_bytes(full.read_bytes()[:100])
        files.lake.footers.keep(())
        with pytest.raises(StoreUnavailableError, match="replaced meanwhile, or cannot be read"):
            reader.read({path: [hit(some[0])]}, NAMES)


def test_a_page_of_large_events_is_refused_with_what_to_do(
    files: Files, reader: HitRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hit_rows, "_MOST_MB", 1)
    some = [silver_row(n, payload=f'"{n:0600000}"') for n in range(4)]
    path = write_rows(files.lake, SILVER_EVENTS, "a.parquet", DAY, [silver_table(some)]).path
    assert len(reader.read({path: [hit(some[3])]}, NAMES)) == 1
    with pytest.raises(QueryError, match="ask for fewer"):
        reader.read({path: [hit(row) for row in some]}, NAMES)


def test_a_hit_at_the_end_of_a_file_is_reached_in_pieces(
    files: Files, reader: HitRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few_rows, "_PIECE_ROWS", 7)
    for n in (0, 6, 7, 598, 599):
        table = reader.read({files.paths["landed"]: [hit(files.rows[n])]}, NAMES)
        assert found(table) == expected([files.rows[n]])
