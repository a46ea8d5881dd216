"""Many identities: exact while the bitmap grows and runs go to files, in memory that is bounded."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.landing import known, maybe
from dc_platform.landing.keys import Keys, MappedKeys, SortedKeys
from dc_platform.landing.known import KnownIdentities
from dc_platform.landing.spill import Spill

MB = 2**20


def some(random: np.random.Generator, rows: int) -> Keys:
    return Keys(*(random.integers(0, 2**64, rows, np.uint64) for _ in range(2)))


def nearly(keys: Keys) -> Keys:
    """None of `keys`, but each like one in its high word: the bitmap lets all of them through."""
    return Keys(keys.high, keys.low ^ np.uint64(1))


def anonymous_mb() -> float:
    """Memory of this process that the kernel cannot drop."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


# --- exactness ---

numbers = st.integers(0, 400)
steps = st.lists(
    st.tuples(st.sampled_from(("landed", "mapped", "asked", "refused", "accepted")), numbers),
    max_size=60,
)


@given(steps, st.sampled_from((64, 2048, 1 << 20)))
@settings(max_examples=60)
def test_they_agree_with_a_set(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], memory: int
) -> None:
    """With sizes at which some hundred identities do what hundreds of millions do."""
    random = np.random.default_rng(len(steps))
    path = tmp_path_factory.mktemp("spill") / "identities"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_SPILL_ROWS", 64), ("_RUNS", 6), ("_BITMAP_BYTES", 16)):
            patch.setattr(known, name, value)
        patch.setattr(known, "_MERGED_ROWS", 700)
        patch.setattr(maybe, "_STRETCH", 32)
        clock = iter(range(0, 10**6, 61))
        held = KnownIdentities(memory, Spill(path, clock=lambda: next(clock)))
        model: list[Keys] = []
        for action, number in steps:
            if action in ("refused", "accepted"):
                path.rename(path.with_name("away")) if path.is_dir() else None
                path.unlink(missing_ok=True)
                if action == "refused":
                    path.touch()
                continue
            keys = some(random, number)
            if action == "mapped":
                keys = MappedKeys(*SortedKeys.of(keys))
            if action != "asked":
                held.add(keys)
                model.append(keys)
            elif model:
                whole = Keys(*(np.concatenate(words) for words in zip(*model, strict=True)))
                assert held.contain(whole).all()
                assert not held.contain(nearly(whole)).any()
                assert not held.contain(keys).any()
        assert len(held) == sum(map(len, model)) == sum(map(len, held._runs))
        for keys in model:
            assert held.contain(keys).all()
            assert not held.contain(nearly(keys)).any()


# --- memory ---


@pytest.fixture
def spill(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "identities"
    assert not any((tmp_path / "identities").glob("*")), "a file that outlives the process"


def test_five_million_stay_in_the_memory_of_two(spill: Path) -> None:
    """24 bytes each were 2,097,152 in 48 MiB; their words alone would be 76."""
    random = np.random.default_rng(5)
    before = anonymous_mb()
    held = KnownIdentities(48 * MB, Spill(spill))
    samples = []
    for _ in range(25):
        keys = some(random, 200_000)
        held.add(keys)
        assert held.contain(keys.take(np.arange(0, 200_000, 100))).all()
        samples.append(keys.take(np.arange(0, 200_000, 1000)))
        assert not held.full
    assert len(held) == 5_000_000 < held.limit
    assert held.bytes <= 48 * MB
    assert anonymous_mb() - before < 48
    for keys in samples:
        assert held.contain(keys).all()
        assert not held.contain(nearly(keys)).any()


def test_small_commits_for_hours_are_merged_a_few_times_each(
    spill: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten = 0
    original = known.merged

    def counting(runs: list[SortedKeys]) -> Iterator[SortedKeys]:
        nonlocal rewritten
        rewritten += sum(len(run.high) for run in runs)
        return original(runs)

    monkeypatch.setattr(known, "merged", counting)
    monkeypatch.setattr(known, "_SPILL_ROWS", 2**12)
    random = np.random.default_rng(6)
    held = KnownIdentities(8 * MB, Spill(spill))
    for _ in range(8000):
        held.add(some(random, 10))
    # Three times each; when the smaller half is made one run again and again, seven times.
    assert rewritten <= 4 * len(held)
    assert len(held._runs) <= 40


def test_a_directory_that_refuses_costs_memory_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    now = 0.0
    held = KnownIdentities(32 * MB, Spill(tmp_path / "file" / "identities", clock=lambda: now))
    random = np.random.default_rng(8)
    with caplog.at_level(logging.WARNING):
        keys = [some(random, 150_000) for _ in range(3)]
        for part in keys:
            held.add(part)
            assert held.contain(part).all()
    assert len(caplog.records) == 1, "it asks once a minute"
    assert "takes no files" in caplog.text
    assert held.bytes >= 16 * 450_000
    assert not held.full
    (tmp_path / "file").unlink()
    now = 61.0
    keys.append(some(random, 1))
    held.add(keys[-1])
    assert held.bytes < 4 * MB
    for part in keys:
        assert held.contain(part).all()


def test_the_last_gigabyte_of_a_disk_is_left_to_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    held = KnownIdentities(32 * MB, Spill(tmp_path))
    keys = some(np.random.default_rng(8), 300_000)
    held.add(keys)
    assert held.contain(keys).all()
    assert held.bytes >= 16 * 300_000


def test_without_room_they_say_that_they_are_full() -> None:
    held = KnownIdentities(4 * MB, Spill(None))
    random = np.random.default_rng(9)
    for _ in range(10):
        held.add(some(random, 10_000))
        assert not held.full
    for _ in range(20):
        held.add(some(random, 10_000))
    assert held.full


def test_a_disk_that_fills_up_in_the_middle_loses_nothing(
    spill: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = os.pwrite
    room = MB

    def writing(file: int, data: memoryview, at: int) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(28, "No space left on device")
        # A write may take less than it was given.
        took = written(file, data[:100_000], at)
        room -= took
        return took

    monkeypatch.setattr(os, "pwrite", writing)
    held = KnownIdentities(16 * MB, Spill(spill))
    random = np.random.default_rng(10)
    keys = [some(random, 40_000) for _ in range(6)]
    for part in keys:
        held.add(part)
    assert "No space left" in caplog.text
    for part in keys:
        assert held.contain(part).all()
        assert not held.contain(nearly(part)).any()
