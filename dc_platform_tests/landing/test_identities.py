"""Identities against a model: exact, whatever is in memory, and never more of it than allowed."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.identity_files import IdentityFiles
from dc_platform.lake.store import Lake
from dc_platform.lake.table import Snapshot
from dc_platform.landing.identities import IdentityIndex, files_with
from dc_platform.landing.keys import KeyMaker, Keys, SortedKeys
from dc_platform.landing.ordered import Ordered
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.identities import MAKER, Files, Row, index, keys_of, scopes_of

# --- identities ---


def test_an_identity_is_source_and_id() -> None:
    rows: list[Row] = [
        (source, some_uuid(number), 0) for source in ("a", "b", "", None) for number in range(50)
    ]
    keys = keys_of(rows)
    assert len(set(zip(keys.high.tolist(), keys.low.tolist(), strict=True))) == len(rows)
    again = keys_of(rows)
    assert (keys.high == again.high).all()
    assert (keys.low == again.low).all()


def test_an_identity_does_not_depend_on_the_columns_encoding() -> None:
    sources = ["a", "b", None, "a", "c"]
    ids = [some_uuid(number) for number in range(5)]
    plain = MAKER.keys(pa.array(sources), pa.array(ids))
    variants = [
        (pa.array(sources).dictionary_encode(), pa.array(ids)),
        (pa.chunked_array([sources[:2], sources[2:]]), pa.chunked_array([ids[:1], ids[1:]])),
        (
            pa.chunked_array(
                [pa.array(part).dictionary_encode() for part in (sources[:2], sources[2:])]
            ),
            pa.array(ids, pa.large_string()),
        ),
        (pa.array(["x", *sources])[1:], pa.array([some_uuid(9), *ids])[1:]),
        (pa.array(["x", *sources]).dictionary_encode()[1:], pa.array([some_uuid(9), *ids])[1:]),
    ]
    for source_column, id_column in variants:
        keys = MAKER.keys(source_column, id_column)
        assert (keys.high == plain.high).all()
        assert (keys.low == plain.low).all()


def test_neighbouring_ids_share_no_word() -> None:
    """Sequential ids are what devices make; each word has to look random nevertheless."""
    rows: list[Row] = [("s", str(uuid.UUID(int=number)), 0) for number in range(20_000)]
    rows += [("s", str(uuid.UUID(int=number << 64)), 0) for number in range(1, 20_000)]
    keys = keys_of(rows)
    assert len(np.unique(keys.high)) == len(np.unique(keys.low)) == len(rows)
    assert len(np.intersect1d(keys.high, keys.low)) == 0


def test_keys_of_two_makers_have_nothing_in_common() -> None:
    rows: list[Row] = [("s", some_uuid(number), 0) for number in range(100)]
    assert not np.isin(keys_of(rows).high, keys_of(rows, KeyMaker()).high).any()


@pytest.mark.parametrize("bad", ["", "x", some_uuid(1)[:-1], None])
def test_what_is_no_uuid_is_refused(bad: str | None) -> None:
    with pytest.raises(ValueError, match="not a UUID"):
        MAKER.keys(pa.array(["s"]), pa.array([bad], pa.string()))


def test_no_rows_have_no_keys() -> None:
    assert len(keys_of([])) == 0


words = st.integers(0, 3).map(np.uint64)
pairs = st.lists(st.tuples(words, words), max_size=30)


def constructed(found: list[tuple[np.uint64, np.uint64]]) -> Keys:
    return Keys(
        np.array([high for high, _ in found], np.uint64),
        np.array([low for _, low in found], np.uint64),
    )


@given(pairs, pairs)
def test_look_ups_in_order_agree_with_a_set(
    held: list[tuple[np.uint64, np.uint64]], asked: list[tuple[np.uint64, np.uint64]]
) -> None:
    found = SortedKeys.of(constructed(held)).contains(constructed(asked))
    assert found.tolist() == [pair in held for pair in asked]


@given(pairs, st.data())
def test_what_is_in_order_says_the_same_of_the_rows(
    found: list[tuple[np.uint64, np.uint64]], data: st.DataObject
) -> None:
    scopes = np.array(
        data.draw(st.lists(st.integers(0, 9), min_size=len(found), max_size=len(found)))
    )
    ordered = Ordered.of(constructed(found), scopes.astype(np.int64))
    assert (np.diff(ordered.keys.high.astype(object)) >= 0).all()
    firsts = ordered.firsts()
    expected = [pair not in found[:number] for number, pair in enumerate(found)]
    assert ordered.mask(firsts).tolist() == expected
    kept = ordered.kept(firsts)
    rows = [
        (pair, scope) for pair, scope, first in zip(found, scopes, expected, strict=True) if first
    ]
    pairs_kept = zip(kept.keys.high, kept.keys.low, strict=True)
    by_row = sorted(zip(kept.rows.tolist(), pairs_kept, kept.scopes, strict=True))
    assert [row for row, _, _ in by_row] == list(range(len(rows)))
    assert [(pair, scope) for _, pair, scope in by_row] == rows


@pytest.mark.parametrize("runs", [1, 5, 40])
def test_identities_that_share_a_word_are_told_apart(runs: int) -> None:
    """64 equal bits happen by chance among thousands of millions; they are no duplicate."""
    held = index()
    for number in range(runs):
        held.add(constructed([(np.uint64(7), np.uint64(2 * number))]))
    snapshot = Files(Path("nowhere")).snapshot()
    asked = [(np.uint64(7), np.uint64(low)) for low in range(2 * runs)]
    asked += [(np.uint64(8), np.uint64(low)) for low in range(2 * runs)]
    found = held.known(constructed(asked), np.zeros(len(asked), np.int64), snapshot)
    assert found.tolist() == [low % 2 == 0 for low in range(2 * runs)] + [False] * 2 * runs


# --- look-ups ---

ids = st.integers(0, 25).map(some_uuid)
row_strategy = st.tuples(st.sampled_from(("a", "b", None)), ids, st.integers(-3, 3))
batches = st.lists(row_strategy, min_size=1, max_size=12)


@given(
    st.lists(st.tuples(st.sampled_from(("land", "other", "look")), batches), max_size=12),
    st.sampled_from((0, 3, 10, 40, 10_000)),
    st.booleans(),
)
@settings(max_examples=60)
def test_look_ups_agree_with_a_set(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, list[Row]]],
    limit: int,
    statistics: bool,
) -> None:
    files = Files(tmp_path_factory.mktemp("files"))
    held = index(limit)
    for action, rows in steps:
        snapshot = files.snapshot(statistics=statistics)
        found = held.known(keys_of(rows), scopes_of(rows), snapshot).tolist()
        scopes = {scope for _, _, scope in rows}
        stored = files.rows()
        certain = {(source, event) for source, event, scope in stored if scope in scopes}
        possible = {(source, event) for source, event, _ in stored}
        for (source, event, _), known in zip(rows, found, strict=True):
            if (source, event) in certain:
                assert known
            if (source, event) not in possible:
                assert not known
        assert len(held) <= limit
        fresh = [row for row, known in zip(rows, found, strict=True) if not known]
        # With "other" somebody else landed them: the next look-up has to find out by itself.
        if action != "look" and fresh:
            path = files.write(fresh)
            if action == "land":
                held.add(keys_of(fresh), of=[path])


def test_a_scope_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path)
    files.write([("a", some_uuid(1), 5)])
    held = index()
    reads: list[int] = []
    original = held.read

    def counting(paths: list[str], scopes: object = None) -> object:
        reads.append(len(paths))
        return original(paths, scopes)  # type: ignore[arg-type]

    monkeypatch.setattr(held, "read", counting)
    asked: list[Row] = [("a", some_uuid(1), 5), ("a", some_uuid(2), 5)]
    for _ in range(3):
        found = held.known(keys_of(asked), scopes_of(asked), files.snapshot())
        assert found.tolist() == [True, False]
    assert reads == [1]


def test_what_is_too_much_for_memory_is_found_in_the_files(tmp_path: Path) -> None:
    files = Files(tmp_path)
    rows: list[Row] = [("a", some_uuid(number), number % 4) for number in range(400)]
    for start in range(0, 400, 100):
        files.write(rows[start : start + 100])
    held = index(limit=50)
    asked: list[Row] = rows[::7] + [
        ("a", some_uuid(number), number % 4) for number in range(400, 450)
    ]
    found = held.known(keys_of(asked), scopes_of(asked), files.snapshot())
    assert found.tolist() == [True] * len(rows[::7]) + [False] * 50
    assert len(held) == 0


def test_a_scope_that_fits_alone_is_held_after_others_were_forgotten(tmp_path: Path) -> None:
    files = Files(tmp_path)
    for scope in (1, 2):
        files.write([("a", some_uuid(scope * 100 + number), scope) for number in range(40)])
    held = index(limit=50)
    for scope in (1, 2, 1):
        asked: list[Row] = [("a", some_uuid(scope * 100), scope), ("a", some_uuid(1), scope)]
        found = held.known(keys_of(asked), scopes_of(asked), files.snapshot())
        assert found.tolist() == [True, False]
        assert len(held) == 40


def kept(root: Path, files: int, rows: int) -> tuple[IdentityIndex, Snapshot, list[Keys]]:
    """An index of 8 MiB over identity files of scope 5 (and, in the last file, 6), none of it read."""
    lake = Lake(str(root))
    beside = IdentityFiles(lake, SILVER_EVENTS, MAKER.mark)
    random = np.random.default_rng(files)
    held: list[Keys] = []
    for number in range(files):
        held.append(Keys(*(random.integers(0, 2**64, rows, np.uint64) for _ in range(2))))
        scopes = np.full(rows, 5)
        if number == files - 1:
            scopes[::3] = 6
        beside.write(f"{number}.parquet", *held[-1], scopes)
    bounds = {f"{m}.dedup_scope": pa.array([5] * files, pa.int32()) for m in ("min", "max")}
    bounds["max.dedup_scope"] = pa.array([5] * (files - 1) + [6], pa.int32())
    actions = pa.table({"path": [f"{number}.parquet" for number in range(files)], **bounds})
    made = IdentityIndex(
        MAKER, id_column="event_id", memory_mb=8, files=beside, spill_directory=root / "spill"
    )
    return made, Snapshot(1, actions, lake.uri_of(SILVER_EVENTS)), held


@pytest.mark.parametrize("spills", [True, False])
def test_what_lies_in_files_takes_no_memory(tmp_path: Path, spills: bool) -> None:
    """24 bytes each are 349,525 in 8 MiB; the words of a million are twice as much as that.

    What is copied of the last file, of two scopes, may take memory: 3.2 MB.
    """
    if not spills:
        (tmp_path / "spill").touch()
    held, snapshot, keys = kept(tmp_path, 5, 200_000)
    for scopes, last in (
        (np.array([5]), [n % 3 != 0 for n in range(9)]),
        (np.array([6]), [True] * 9),
    ):
        for part in keys[:-1]:
            assert held.known(part, scopes, snapshot).all()
        asked = keys[-1].take(np.arange(9))
        assert held.known(asked, scopes, snapshot).tolist() == last
        others = Keys(keys[0].high, keys[0].low + np.uint64(1))
        assert not held.known(others, scopes, snapshot).any()
    assert len(held) == 1_000_000
    assert held.memory <= (3 if spills else 6) * 2**20


def test_what_had_no_room_is_loaded_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "spill").touch()
    held, snapshot, [keys] = kept(tmp_path, 1, 700_000)
    scopes = np.array([5])
    asked = keys.take(np.arange(6))
    expected = [number % 3 != 0 for number in range(6)]
    assert held.known(asked, scopes, snapshot).tolist() == expected
    assert len(held) == 0
    (tmp_path / "spill").unlink()
    monkeypatch.setattr("dc_platform.landing.spill._REST_SECONDS", 0.0)
    monkeypatch.setattr(held._known._spill, "_resting_until", 0.0)
    assert held.known(asked, scopes, snapshot).tolist() == expected
    assert len(held) > 0


def test_what_is_too_much_is_found_in_identity_files_and_read_once_for_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, snapshot, keys = kept(tmp_path, 4, 2_000)
    held._limit = 5_000
    reads: list[int] = []
    original = held.read
    monkeypatch.setattr(
        held, "read", lambda paths, scopes=None: reads.append(len(paths)) or original(paths, scopes)
    )
    scopes = np.full(2_000, 5)
    for _ in range(2):
        for part in keys[:-1]:
            assert held.known(part, scopes, snapshot).all()
            others = Keys(part.high, part.low + np.uint64(1))
            assert not held.known(others, scopes, snapshot).any()
        found = held.known(keys[-1], scopes, snapshot)
        assert found.tolist() == [number % 3 != 0 for number in range(2_000)]
        assert len(held) == 0
    # Fourteen look-ups, and one attempt to hold what is too much.
    assert reads == [4] * 15
    # Scope 6 alone fits.
    assert held.known(keys[-1], np.array([6]), snapshot).sum() == 667
    assert len(held) == 667


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4), st.booleans()), max_size=8),
    st.lists(st.integers(-8, 12), max_size=5),
)
def test_files_are_left_out_only_when_they_cannot_match(
    files: list[tuple[int, int, bool]], scopes: list[int]
) -> None:
    actions = pa.table(
        {
            "path": pa.array([str(number) for number in range(len(files))], pa.string()),
            "min.dedup_scope": pa.array(
                [low if has else None for low, _, has in files], pa.int32()
            ),
            "max.dedup_scope": pa.array(
                [low + width if has else None for low, width, has in files], pa.int32()
            ),
        }
    )
    snapshot = Snapshot(1, actions, "/root")
    expected = [
        f"/root/{number}"
        for number, (low, width, has) in enumerate(files)
        if scopes and (not has or any(low <= scope <= low + width for scope in scopes))
    ]
    assert files_with(snapshot, np.array(scopes, np.int64)) == expected


def test_bucket_scopes_are_exact_in_the_look_up() -> None:
    """They lie above 2^30: a look-up in 32-bit floats would round them together."""
    base = 1 << 30
    actions = pa.table(
        {
            "path": ["a", "b"],
            "min.dedup_scope": pa.array([base + 1, base + 255], pa.int32()),
            "max.dedup_scope": pa.array([base + 1, base + 255], pa.int32()),
        }
    )
    snapshot = Snapshot(1, actions, "/r")
    assert files_with(snapshot, np.array([base + 1])) == ["/r/a"]
    assert files_with(snapshot, np.array([base + 2, base + 254])) == []
