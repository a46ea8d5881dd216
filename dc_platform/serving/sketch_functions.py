"""SQL functions over sketches (docs/sketches.md), in DuckDB.

    hll_estimate(s)              distinct values, of one sketch or of a list together
    hll_bounds(s)                {lower, estimate, upper}: 95 % of the truths
    hll_merge(s)                 one sketch of a list
    top_k(s, k)                  [{item, estimate, lower, upper}, …], the most frequent first
    quantile_estimate(s, rank)   the value at a rank from 0 to 1

They are Python functions of the one instance that all queries share, so a query that has been ended
would not end them: DuckDB looks only between two calls for 2,048 rows each. Therefore each query has
macros of these names, which hand the query's number on, and a function looks now and then whether
its query still runs. Sketches come from whoever writes SQL, so every byte is checked (`gold/`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import duckdb
from duckdb.func import FunctionNullHandling

from dc_platform.gold import quantiles, sketches
from dc_platform.gold.sketches import SketchError
from dc_platform.serving.guard import HIDDEN
from dc_platform.serving.rows import Clock

Look = Callable[[], None]


class _Function(NamedTuple):
    arguments: str
    returns: str
    call: Callable[..., Any]


def _bounds(blobs: list[bytes], look: Look) -> dict[str, float]:
    return dict(zip(("lower", "estimate", "upper"), sketches.hll_bounds(blobs, look), strict=True))


def _top(blobs: list[bytes], count: Any, look: Look) -> list[dict[str, Any]]:
    if not isinstance(count, int) or count < 1:
        raise SketchError("k is a whole number from 1 on")
    return [item._asdict() for item in sketches.top_items(blobs, count, look)]


def _quantile(blobs: list[bytes], rank: Any, look: Look) -> float | None:
    try:
        found = quantiles.quantiles(blobs, [float(rank)], look)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, SketchError):
            raise
        raise SketchError("a rank is a number from 0 to 1: 0.99") from None
    return found[0] if found else None


_ITEM = 'struct(item varchar, estimate bigint, "lower" bigint, "upper" bigint)'
FUNCTIONS = {
    "hll_estimate": _Function("s", "double", sketches.hll_estimate),
    "hll_bounds": _Function(
        "s", 'struct("lower" double, estimate double, "upper" double)', _bounds
    ),
    "hll_merge": _Function("s", "blob", sketches.hll_merge),
    "top_k": _Function("s, k", f"{_ITEM}[]", _top),
    "quantile_estimate": _Function("s, rank", "double", _quantile),
}


class SketchFunctions:
    """The functions of one DuckDB instance."""

    def __init__(self, instance: duckdb.DuckDBPyConnection) -> None:
        self._numbers = itertools.count(1)
        self._running: dict[int, Clock] = {}
        for name, function in FUNCTIONS.items():
            instance.create_function(
                HIDDEN + name,
                self._callable(name, function),
                None,  # any arguments: a sketch or a list of them
                function.returns,
                null_handling=FunctionNullHandling.SPECIAL,
            )

    @contextmanager
    def named_on(
        self, cursor: duckdb.DuckDBPyConnection, clock: Clock, names: Collection[str]
    ) -> Iterator[None]:
        """Those of the functions that a query names exist on its cursor, within the block."""
        number = next(self._numbers)
        self._running[number] = clock
        try:
            for name in FUNCTIONS.keys() & set(names):
                arguments = FUNCTIONS[name].arguments
                cursor.execute(
                    f"create temp macro {name}({arguments}) as"
                    f" {HIDDEN}{name}({arguments}, {number})"
                )
            yield
        finally:
            del self._running[number]

    def _callable(self, name: str, function: _Function) -> Callable[..., Any]:
        def call(given: Any, *rest: Any) -> Any:
            *arguments, number = rest
            if given is None:
                return None
            try:
                return function.call(_blobs(given), *arguments, lambda: self._look(number))
            except SketchError as error:
                raise SketchError(f"{name}: {error}") from None

        return call

    def _look(self, number: int) -> None:
        """Raises when the query has been ended."""
        clock = self._running.get(number)
        if clock is None or clock.ended:
            raise SketchError("the query has been ended")


def _blobs(given: Any) -> list[bytes]:
    """A sketch, or the sketches of a list; nulls are none."""
    found = [g for g in (given if isinstance(given, list) else [given]) if g is not None]
    if not all(isinstance(blob, bytes) for blob in found):
        raise SketchError("takes a sketch (BLOB) or a list of them: list(users_hll)")
    return found
