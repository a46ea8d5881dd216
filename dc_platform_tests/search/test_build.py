"""The index beside silver that changes: what a build brings in is what a build from scratch has, and
what an index says of itself is true, wherever the process was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
import tantivy

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import CommitConflictError
from dc_platform.lake.rewrite import in_pieces
from dc_platform.lake.table import LakeTable
from dc_platform.points import Point
from dc_platform.search import build, index
from dc_platform.search.analysis import Analyzer
from dc_platform.search.build import Builder
from dc_platform.search.coverage import Comparer
from dc_platform.search.home import dead_in
from dc_platform.search.index import DamagedIndexError, Moment, Reading, Wanted
from dc_platform.search.language import parse
from dc_platform.settings import Settings
from dc_platform_tests.helpers.landing import CrashError, crash_at
from dc_platform_tests.helpers.search import QUERIES, TEXTS, Changing, assert_true, matches

ANALYZER = Analyzer()


def moment(changing: Changing) -> Moment:
    directory = changing.index
    assert directory is not None
    return Reading(directory).moment()


def found(at: Moment, query: str, without: Sequence[tuple[int, int]] = ()) -> set[int]:
    """The offsets of what matches; silver_row gives each event its own."""
    wanted = Wanted(parse(query, ANALYZER.of_texts), "default")
    count, hits = at.search(wanted, without=without, after=None, limit=100_000)
    assert count == len(hits) == len({hit.kafka_offset for hit in hits})
    return {hit.kafka_offset for hit in hits}


def expected(changing: Changing, query: str) -> set[int]:
    tree = parse(query, ANALYZER.of_texts)
    return {row["kafka_offset"] for row in changing.live.values() if matches(row, tree)}


@pytest.mark.parametrize("seed", range(5))
def test_a_build_brings_in_what_a_build_from_scratch_has(tmp_path: Path, seed: int) -> None:
    changing, random = Changing(tmp_path, seed), Random(seed)
    comparer = Comparer(changing.lake)
    for _ in range(20):
        changing.something()
        if random.random() < 0.4:
            built = changing.builder(commit_rows=random.choice((1, 5, 1000))).build()
            at = moment(changing)
            assert built.documents == len(changing.live) == changing.rows_in_silver()
            assert built.version == changing.table.version
            assert_true(at)
            assert set(at.state.files) == set(changing.files)
            query = random.choice(QUERIES)
            assert found(at, query) == expected(changing, query)
        elif changing.index:
            # Between builds: what silver has lost is left out, what it has got is named.
            at, silver = moment(changing), LakeTable(changing.lake, SILVER_EVENTS).snapshot()
            coverage = comparer.compare(at.state, silver)
            missing = {o for file in coverage.missing for o in offsets_of(changing, file.path)}
            for query in ("NOT zebra", random.choice(QUERIES)):
                indexed = found(at, query, coverage.gone)
                assert not indexed & missing
                rest = expected(changing, query) & missing
                assert indexed | rest == expected(changing, query)
    incremental = changing.builder()
    incremental.build()
    before = {query: found(moment(changing), query) for query in QUERIES}
    incremental.build(anew=True)
    assert {query: found(moment(changing), query) for query in QUERIES} == before
    assert before == {query: expected(changing, query) for query in QUERIES}


def offsets_of(changing: Changing, path: str) -> list[int]:
    """Of the rows of a file that is live, or was merged and is still there."""
    root = changing.lake.uri_of(SILVER_EVENTS)
    return [o for batch in in_pieces(root, path, ["kafka_offset"]) for o in batch[0].to_pylist()]


def test_compaction_indexes_nothing_again(tmp_path: Path) -> None:
    changing = Changing(tmp_path)
    for _ in range(4):
        changing.land(changing.rows(TEXTS))
    builder = changing.builder()
    assert builder.build().added == 28
    changing.compact(list(changing.files)[:3], ordered=False)
    changing.compact(list(changing.files), ordered=True)
    changing.clean()
    built = builder.build()
    assert (built.added, built.removed, built.documents) == (0, 0, 28)
    assert set(moment(changing).state.files) == set(changing.files)
    # One that merged what was indexed and what was not: the latter alone is new.
    changing.land(changing.rows(TEXTS))
    changing.compact(list(changing.files), ordered=False)
    built = builder.build()
    assert (built.added, built.removed, built.documents) == (7, 0, 35)
    assert_true(moment(changing))


def test_a_deletion_in_a_file_of_which_the_index_has_a_part(tmp_path: Path) -> None:
    changing = Changing(tmp_path)
    changing.land(changing.rows(TEXTS))
    builder = changing.builder()
    builder.build()
    changing.land(changing.rows(TEXTS))
    changing.compact(list(changing.files), ordered=False)
    [merged] = changing.files
    changing.delete(merged, {next(iter(changing.live))})
    built = builder.build()
    assert (built.added, built.removed, built.documents) == (13, 1, 13)
    assert built.version == changing.table.version
    assert found(moment(changing), "NOT zebra") == expected(changing, "NOT zebra")


@pytest.mark.parametrize("why", ["days", "rows"])
def test_words_of_what_was_deleted_leave_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    changing = Changing(tmp_path)
    for _ in range(3):
        changing.land(changing.rows(TEXTS * 2))
    changing.builder().build()
    before = changing.index
    for path in list(changing.files)[:2]:
        changing.delete(path, {row["event_id"] for row in changing.files[path][:10]})
    changing.builder().build()
    # No event any more, and still there: some rows are not worth a build from scratch, nor is an hour.
    assert changing.index == before
    assert before is not None
    assert dead_in(before) >= 28
    assert not changing.builder().behind().is_due(Settings())
    if why == "days":
        changing.settings = Settings(data_dir=tmp_path, search_forget_days=1e-9)
    else:
        monkeypatch.setattr(build, "_DEAD_ROWS", 5)
    assert changing.builder().behind().is_due(Settings())
    changing.builder().build()
    assert changing.index is not None
    assert changing.index != before
    assert dead_in(changing.index) < 3
    assert found(moment(changing), "NOT zebra") == expected(changing, "NOT zebra")
    assert not changing.builder().behind().is_due(Settings())


@pytest.mark.parametrize("point", [Point.FILE_INDEXED, Point.INDEX_WRITTEN, Point.INDEX_COMMITTED])
def test_a_build_that_died_is_gone_on_with(tmp_path: Path, point: Point) -> None:
    changing = Changing(tmp_path)
    changing.land(changing.rows(TEXTS))
    changing.builder().build()
    for _ in range(3):
        changing.land(changing.rows(TEXTS))
    doomed = changing.files
    changing.delete(next(iter(doomed)), {next(iter(changing.live))})
    with pytest.raises(CrashError):
        changing.builder(commit_rows=10, reached=crash_at(point)).build()
    assert_true(moment(changing))
    changing.builder().build()
    assert_true(moment(changing))
    assert found(moment(changing), "NOT zebra") == expected(changing, "NOT zebra")


_BUILDS = """
import sys
from pathlib import Path
from dc_platform.search.build import Builder
from dc_platform.settings import Settings

builder = Builder(Settings(data_dir=Path(sys.argv[1])), commit_rows=200)
print("builds", flush=True)
builder.build(anew=len(sys.argv) > 2)
"""


def test_kill_9_leaves_an_index_that_tells_the_truth(tmp_path: Path) -> None:
    changing, random = Changing(tmp_path), Random(3)
    killed = 0
    for turn in range(4):
        for _ in range(12):
            changing.land(changing.rows(random.choices(TEXTS, k=100)))
        if turn % 2:
            changing.compact(random.sample(list(changing.files), 5), ordered=False)
            path = random.choice(list(changing.files))
            changing.delete(path, {row["event_id"] for row in changing.files[path][::3]})
        command = [sys.executable, "-c", _BUILDS, str(tmp_path), *["anew"][: turn % 3 == 2]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"builds\n"
        time.sleep(random.random() * 0.6)
        os.kill(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if changing.index:
            assert_true(moment(changing))
    assert killed
    changing.builder().build()
    assert_true(moment(changing))
    for query in QUERIES:
        assert found(moment(changing), query) == expected(changing, query)
    assert len(list((tmp_path / "search").glob("index-*"))) == 1


def test_one_build_at_a_time(tmp_path: Path) -> None:
    changing = Changing(tmp_path)
    changing.land(changing.rows(TEXTS))
    builder = changing.builder()
    assert not builder.home.is_building
    with builder.home.building():
        assert changing.builder().home.is_building
        with pytest.raises(CommitConflictError, match="another build"):
            changing.builder().build()
    assert builder.build().added == len(TEXTS)


@pytest.mark.parametrize("damage", ["meta.json", "*.term", "current", "other table"])
def test_an_index_that_cannot_be_read_is_built_anew(tmp_path: Path, damage: str) -> None:
    changing = Changing(tmp_path)
    changing.land(changing.rows(TEXTS))
    builder = changing.builder()
    builder.build()
    directory = builder.home.current()
    assert directory is not None
    if damage == "current":
        (directory.parent / "current.json").write_text("{")
    elif damage == "other table":
        other = Changing(tmp_path / "other")
        other.land(other.rows(TEXTS))
        (tmp_path / "lake").rename(tmp_path / "before")
        (tmp_path / "other" / "lake").rename(tmp_path / "lake")
        changing.table, changing.live = LakeTable(changing.lake, SILVER_EVENTS), other.live
    else:
        for file in directory.glob(damage):
            file.write_bytes(b"nonsense")
    changing.builder().build()
    assert changing.index != directory
    assert found(moment(changing), "disk") == expected(changing, "disk")


def test_an_index_of_another_release_is_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing = Changing(tmp_path)
    changing.land(changing.rows(TEXTS))
    with monkeypatch.context() as patch:
        patch.setattr(index, "_schema", _schema_of_release_1)
        changing.builder().build()
        before = changing.index
        assert before is not None
        assert Reading(before).moment().documents == len(TEXTS)
    with pytest.raises(DamagedIndexError, match="another release"):
        Reading(before)
    behind = changing.builder().behind()
    assert (behind.documents, behind.rows) == (0, len(TEXTS))
    assert behind.is_due(Settings(search_behind_rows=1))
    built = changing.builder().build()
    assert (built.added, built.documents) == (len(TEXTS), len(TEXTS))
    assert changing.index != before
    assert not before.exists()
    for query in QUERIES:
        assert found(moment(changing), query) == expected(changing, query)


def _schema_of_release_1() -> tantivy.Schema:
    """It did not tell the source of a hit."""
    made = tantivy.SchemaBuilder()
    made.add_text_field("words", tokenizer_name="words")
    for name in ("tenant_id", "source_id", "event_type", "kind"):
        made.add_text_field(name, tokenizer_name="raw", index_option="basic")
    made.add_bytes_field("state", stored=True)
    made.add_integer_field("event_time", fast=True)
    for name in ("identity", "kafka_partition", "kafka_offset", "kafka_index", "piece"):
        made.add_unsigned_field(name, fast=True)
    return made.build()


def test_a_file_that_cannot_be_read_keeps_no_other_from_the_index(tmp_path: Path) -> None:
    changing = Changing(tmp_path)
    for _ in range(3):
        changing.land(changing.rows(TEXTS))
    bad = list(changing.files)[1]
    path = Path(changing.lake.uri_of(SILVER_EVENTS)) / bad
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    built = changing.builder().build()
    assert built.unreadable == (bad,)
    assert built.documents == 14
    assert built.version == -1
    # It is tried again in ten minutes, not all the time.
    behind = changing.builder().behind()
    assert (behind.rows, behind.unreadable) == (7, 7)
    assert not behind.is_due(Settings(search_behind_rows=1))
    path.write_bytes(whole)
    assert changing.builder().build().version == changing.table.version
    assert found(moment(changing), "disk") == expected(changing, "disk")


def test_how_far_it_is_behind(tmp_path: Path) -> None:
    changing = Changing(tmp_path)
    settings = Settings(search_behind_rows=10)
    builder: Builder = changing.builder()
    assert not builder.behind().is_due(settings)
    changing.land(changing.rows(TEXTS[:3]))
    # Of an index that there never was as old as who looks.
    assert not builder.behind().is_due(settings)
    assert builder.behind().is_due(Settings(search_behind_minutes=1e-9))
    builder.build()
    assert builder.behind().rows == 0
    changing.land(changing.rows(TEXTS[:3]))
    behind = builder.behind()
    assert (behind.rows, behind.gone, behind.is_due(settings)) == (3, 0, False)
    changing.land(changing.rows(TEXTS))
    assert builder.behind().is_due(settings)
    builder.build()
    changing.delete(next(iter(changing.files)), {next(iter(changing.live))})
    assert builder.behind().gone == 1
    assert builder.behind().is_due(settings)
