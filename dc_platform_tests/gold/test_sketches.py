"""Sketches against exact answers, over several seeds, skewed and uniform; and bytes that are none."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import datasketches
import numpy as np
import pytest

from dc_platform.gold import quantiles, sketches
from dc_platform.gold.sketches import SketchError

SEEDS = range(6)


def users(count: int, seed: int = 0) -> list[str]:
    return sorted(f"user-{seed}-{n}" for n in range(count))


@pytest.mark.parametrize("count", [0, 1, 8, 9, 1000, 1537, 20_000, 300_000])
@pytest.mark.parametrize("seed", SEEDS)
def test_distinct_values_are_counted_within_the_error(count: int, seed: int) -> None:
    sketch = sketches.hll_of(users(count, seed))
    # Six seeds and eight sizes: one of the 48 may be beyond two standard errors, none beyond four.
    assert abs(sketches.hll_estimate([sketch]) - count) <= 4 * 0.0081 * count + 1e-3
    low, estimate, high = sketches.hll_bounds([sketch])
    assert low <= estimate <= high
    assert high - low <= 2 * 2.2 * 0.0081 * count + 1e-3


def test_nearly_all_truths_are_within_the_bounds() -> None:
    inside = 0
    for seed in range(100):
        low, _, high = sketches.hll_bounds([sketches.hll_of(users(5000, seed))])
        inside += low <= 5000 <= high
    # 95 % of them; below 88 of 100 is one in ten thousand.
    assert inside >= 88


@pytest.mark.parametrize(
    "sizes", [[5, 3], [30, 2000, 8], [3000, 4000, 100], [1, 50_000], [0, 7], [900, 900]]
)
def test_merged_sketches_are_one_over_everything(sizes: list[int]) -> None:
    parts = [users(size, seed) for seed, size in enumerate(sizes)]
    # Some are in two parts.
    parts = [part + parts[0][: len(parts[0]) // 2] for part in parts]
    blobs = [sketches.hll_of(part) for part in parts]
    whole = sketches.hll_of({value for part in parts for value in part})
    assert sketches.hll_merge(blobs) == whole
    assert sketches.hll_merge([whole, *reversed(blobs)]) == whole
    assert sketches.hll_estimate(blobs) == pytest.approx(sketches.hll_estimate([whole]), rel=1e-9)
    assert sketches.hll_estimate(blobs) == pytest.approx(sum(sizes), rel=4 * 0.0081)


def test_our_merge_is_the_library_s() -> None:
    blobs = [sketches.hll_of(users(4000, seed)) for seed in SEEDS]
    union = datasketches.hll_union(sketches.LG_K)
    for blob in blobs:
        union.update(datasketches.hll_sketch.deserialize(blob))
    assert sketches.hll_estimate(blobs) == pytest.approx(union.get_estimate(), rel=1e-9)
    ours = datasketches.hll_sketch.deserialize(sketches.hll_merge(blobs))
    assert ours.get_estimate() == pytest.approx(union.get_estimate(), rel=1e-9)


@pytest.mark.parametrize("skewed", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_frequent_items_are_counted_within_the_error(seed: int, skewed: bool) -> None:
    generator = np.random.default_rng(seed)
    size = 60_000
    drawn = generator.zipf(1.2, size) % 50_000 if skewed else generator.integers(0, 3000, size)
    hours = np.array_split(drawn, 12)
    truth = Counter(f"/{n}" for n in drawn.tolist())
    blobs = []
    for hour in hours:
        counted = Counter(f"/{n}" for n in hour.tolist())
        blobs.append(sketches.items_of(sorted(counted.items())))
    found = sketches.top_items(blobs, 10_000)
    bound = 3.5 / 1024 * len(drawn)
    for item in found:
        assert item.lower <= truth[item.item] <= item.upper
        assert item.upper - item.lower <= bound
    named = {item.item for item in found}
    assert {item for item, count in truth.items() if count > bound} <= named
    assert sketches.top_items(list(reversed(blobs)), 5) == found[:5]
    if skewed:
        best = [item for item, _ in truth.most_common(3)]
        assert [item.item for item in found[:3]] == best


def test_few_items_are_exact() -> None:
    one, two = sketches.items_of([("a", 5), ("é" * 300, 7)]), sketches.items_of([("a", 4)])
    assert sketches.top_items([one, two], 9) == [("a", 9, 9, 9), ("é" * 300, 7, 7, 7)]
    assert sketches.top_items([one, two], 1) == [("a", 9, 9, 9)]
    assert sketches.top_items([sketches.items_of([])], 1) == []
    assert sketches.top_items([], 1) == []


def draw(kind: str, seed: int, size: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return {
        "normal": lambda: generator.normal(size=size),
        "uniform": lambda: generator.random(size),
        "heavy": lambda: generator.pareto(0.7, size),
        "whole": lambda: generator.integers(0, 50, size).astype(float),
        # The sketches that average their values (t-digest) miss the median of these by 25 %.
        "wild": lambda: (
            generator.choice([-1, 1], size) * np.exp(generator.uniform(-300, 300, size))
        ),
        "constant": lambda: np.full(size, 7.5),
    }[kind]()


def rank_error(ordered: np.ndarray, rank: float, value: float) -> float:
    low = np.searchsorted(ordered, value, "left") / len(ordered)
    high = np.searchsorted(ordered, value, "right") / len(ordered)
    return 0.0 if low <= rank <= high else float(min(abs(rank - low), abs(rank - high)))


RANKS = (0.0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)


@pytest.mark.parametrize("kind", ["normal", "uniform", "heavy", "whole", "wild", "constant"])
@pytest.mark.parametrize("seed", SEEDS)
def test_ranks_are_within_the_error_for_one_sketch_and_for_many(kind: str, seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 5000, 40)
    parts = [draw(kind, seed * 100 + n, size) for n, size in enumerate(sizes)]
    ordered = np.sort(np.concatenate(parts))
    for blobs in ([quantiles.quantiles_of(ordered)], [quantiles.quantiles_of(p) for p in parts]):
        found = quantiles.quantiles(blobs, RANKS)
        assert found is not None
        for rank, value in zip(RANKS, found, strict=True):
            assert rank_error(ordered, rank, value) <= quantiles.RANK_ERROR
        assert (found[0], found[-1]) == (ordered[0], ordered[-1])


@pytest.mark.parametrize("size", [1, 2, 3, 511, 512, 513, 1024, 1025, 5000, 99_999])
def test_the_library_reads_our_quantile_sketches(size: int) -> None:
    values = draw("heavy", size, size)
    blob = quantiles.quantiles_of(values)
    theirs = datasketches.kll_doubles_sketch.deserialize(blob)
    assert (theirs.n, theirs.k) == (size, quantiles.K)
    assert (theirs.get_min_value(), theirs.get_max_value()) == (values.min(), values.max())
    inner = RANKS[1:-1]
    assert [theirs.get_quantile(rank, True) for rank in inner] == quantiles.quantiles([blob], inner)
    # And goes on with them.
    theirs.merge(datasketches.kll_doubles_sketch.deserialize(blob))
    theirs.update(5.0)
    assert theirs.n == 2 * size + 1
    assert quantiles.quantiles([theirs.serialize()], [0.0]) == [min(values.min(), 5.0)]


def test_no_numbers_have_no_quantiles() -> None:
    empty = quantiles.quantiles_of(np.empty(0))
    assert quantiles.quantiles([], [0.5]) is None
    assert quantiles.quantiles([empty, empty], [0.5]) is None
    assert quantiles.quantiles([empty, quantiles.quantiles_of(np.ones(1))], [0.5]) == [1.0]
    assert datasketches.kll_doubles_sketch.deserialize(empty).is_empty()
    for rank in (-0.1, 1.1, float("nan")):
        with pytest.raises(SketchError, match="rank"):
            quantiles.quantiles([empty], [rank])


def test_the_same_values_give_the_same_bytes() -> None:
    values = draw("normal", 1, 5000)
    shuffled = np.random.default_rng(2).permutation(values)
    assert quantiles.quantiles_of(values) == quantiles.quantiles_of(shuffled)
    assert quantiles.quantiles_of(np.array([0.0, -0.0])) == quantiles.quantiles_of(np.zeros(2))
    for count in (5, 1000, 4000):
        ordered = users(count)
        assert sketches.hll_of(reversed(ordered)) == sketches.hll_of(ordered)
    code = (
        "from dc_platform.gold.sketches import *; import hashlib;"
        "u = [f'user-{n}' for n in range(3000)];"
        "print(hashlib.sha256(hll_of(u) + items_of((v, 2) for v in u)).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1


VALID = {
    "hll": [sketches.hll_of(users(n)) for n in (0, 1, 8, 9, 1000, 3000)],
    "items": [sketches.items_of((f"é{n}", n + 1) for n in range(n)) for n in (0, 1, 100, 2000)],
    "quantiles": [quantiles.quantiles_of(draw("normal", n, n)) for n in (0, 1, 2, 600, 9000)],
}


def use(kind: str, blob: bytes) -> None:
    if kind == "hll":
        sketches.hll_estimate([blob])
        sketches.hll_merge([blob, VALID["hll"][3], VALID["hll"][5], blob])
    elif kind == "items":
        sketches.top_items([blob, VALID["items"][2], blob], 5)
    else:
        quantiles.quantiles([blob, blob], (0.0, 0.5, 1.0))


@pytest.mark.parametrize("kind", sorted(VALID))
def test_hostile_bytes_are_refused_or_answered(kind: str) -> None:
    """A crash would end pytest itself. Without the checks some thousand of these crash the library."""
    chance = random.Random(kind)
    refused = 0
    for _ in range(4000):
        blob = bytearray(chance.choice(VALID[chance.choice([kind] * 20 + sorted(VALID))]))
        way = chance.random()
        if way < 0.1:
            blob = bytearray(chance.randbytes(chance.randrange(200)))
        elif way < 0.2:
            del blob[chance.randrange(len(blob) + 1) :]
        elif way < 0.25:
            blob += chance.randbytes(chance.randrange(1, 50))
        else:
            for _ in range(chance.choice((1, 1, 2, 4, 20))):
                if blob:
                    at = chance.randrange(min(len(blob), chance.choice((8, 16, 40, len(blob)))))
                    blob[at] = chance.choice((0, 1, 2, 4, 5, 8, 9, 63, 64, 127, 128, 255))
        try:
            use(kind, bytes(blob))
        except SketchError:
            refused += 1
    assert refused > 1000


def test_sketches_of_other_parameters_are_named() -> None:
    for theirs, words in (
        (datasketches.hll_sketch(12), "lg_k 14"),
        (datasketches.hll_sketch(14, datasketches.HLL_4), "HLL_8"),
    ):
        for value in users(5000):
            theirs.update(value)
        with pytest.raises(SketchError, match=words):
            sketches.hll_estimate([theirs.serialize_compact()])
    large = datasketches.frequent_strings_sketch(12)
    large.update("a", 1)
    with pytest.raises(SketchError, match=r"2\^10"):
        sketches.top_items([large.serialize()], 1)
    with pytest.raises(SketchError, match="not a KLL"):
        quantiles.quantiles([VALID["hll"][5]], [0.5])
