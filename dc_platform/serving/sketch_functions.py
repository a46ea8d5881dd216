"""SQL functions over sketches (docs/sketches.md), in DuckDB.

    hll_estimate(s)              distinct values, of one sketch or of a list together
    hll_bounds(s)                {lower, estimate, upper}: 95 % of the truths
    hll_merge(s)                 one sketch of a list
    top_k(s, k)                  [{item, estimate, lower, upper}, …], the most frequent first
    quantile_estimate(s, rank)   the value at a rank from 0 to 1

They are Python functions behind macros: a macro knows how many arguments there are, and takes a sketch
or a list of them. Sketches come from whoever writes SQL, so every byte is checked (`gold/`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import duckdb
from duckdb.func import FunctionNullHandling

from dc_platform.gold import quantiles, sketches
from dc_platform.gold.sketches import SketchError
from dc_platform.serving.guard import HIDDEN


class _Function(NamedTuple):
    arguments: str
    returns: str
    call: Callable[..., Any]


def _bounds(blobs: list[bytes]) -> dict[str, float]:
    return dict(zip(("lower", "estimate", "upper"), sketches.hll_bounds(blobs), strict=True))


def _top(blobs: list[bytes], count: Any) -> list[dict[str, Any]]:
    if not isinstance(count, int) or count < 1:
        raise SketchError("k is a whole number from 1 on")
    return [item._asdict() for item in sketches.top_items(blobs, count)]


def _quantile(blobs: list[bytes], rank: Any) -> float | None:
    try:
        found = quantiles.quantiles(blobs, [float(rank)])
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


def create_functions(instance: duckdb.DuckDBPyConnection) -> None:
    """They exist in the instance from now on."""
    for name, function in FUNCTIONS.items():
        instance.create_function(
            HIDDEN + name,
            _callable(name, function),
            None,  # any arguments: a sketch or a list of them
            function.returns,
            null_handling=FunctionNullHandling.SPECIAL,
        )
        arguments = function.arguments
        # One of any arguments takes two at least.
        instance.execute(f"create macro {name}({arguments}) as {HIDDEN}{name}({arguments}, null)")


def _callable(name: str, function: _Function) -> Callable[..., Any]:
    def call(given: Any, *rest: Any) -> Any:
        *arguments, _ = rest
        if given is None:
            return None
        try:
            return function.call(_blobs(given), *arguments)
        except SketchError as error:
            raise SketchError(f"{name}: {error}") from None

    return call


def _blobs(given: Any) -> list[bytes]:
    """A sketch, or the sketches of a list; nulls are none."""
    found = [g for g in (given if isinstance(given, list) else [given]) if g is not None]
    if not all(isinstance(blob, bytes) for blob in found):
        raise SketchError("takes a sketch (BLOB) or a list of them: list(users_hll)")
    return found
