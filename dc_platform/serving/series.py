"""What a series of datapoints is asked for beside its values: gaps filled, a moving average, and the
same span a day or a week before. In columns: a matrix of series (values of the dimensions) by spans.

What an answer begins with depends on what was before it, so more is asked for than is shown: as many
spans as the average takes, and, for the comparison, the range moved back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dc_platform.contracts.metrics import MetricError

Fill = Literal["none", "null", "zero", "previous", "linear"]
Datapoints = list[dict[str, Any]]
# From [from, to) in epoch microseconds to its datapoints.
Ask = Callable[[int | None, int | None], Datapoints]
Matrix = NDArray[np.float64]
Key = tuple[tuple[str, str], ...]
MOST_SPANS = 1000
# DuckDB's buckets begin on a Monday; they matter only where there is no datapoint to go by.
_MONDAY_MS = 946_857_600_000
_COMPARE = re.compile(r"([1-9]\d{0,4})([mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Shape(NamedTuple):
    """`fill`: what stands in spans without a value. `window`: spans of the moving average, 1: none.
    `back`: milliseconds between a span and the one that it is compared with, 0: none.
    """

    fill: Fill = "none"
    window: int = 1
    back: int = 0

    def check(self, span: int) -> None:
        """Raises MetricError when it does not fit spans of so many milliseconds."""
        if not 1 <= self.window <= MOST_SPANS:
            raise MetricError(f"window: 1 to {MOST_SPANS} spans, not {self.window}")
        if self.back % span:
            raise MetricError("compare: a multiple of the granularity, as in 1d for 1h")


def back_of(compare: str | None) -> int:
    """How many seconds back the compared value is: `1d`, `1w`; 0 for None. Raises MetricError."""
    if compare is None:
        return 0
    found = _COMPARE.fullmatch(compare)
    if found is None:
        raise MetricError(f"compare: a number and m, h, d or w, as in 1w; got {compare!r}")
    return int(found[1]) * _SECONDS[found[2]]


class Grid(NamedTuple):
    """The series (by their dimensions) and the spans (epoch milliseconds) of a matrix."""

    keys: list[Key]
    first: int
    span: int
    length: int

    def matrix(self, points: Datapoints, later: int = 0) -> Matrix:
        """The values of datapoints, moved by `later` milliseconds; NaN where there is none."""
        found = np.full((len(self.keys), self.length), np.nan)
        rows = {key: row for row, key in enumerate(self.keys)}
        for point in points:
            column = (point["timestamp"] + later - self.first) // self.span
            if 0 <= column < self.length and point["value"] is not None:
                found[rows[_key(point)], column] = point["value"]
        return found


def shaped(
    ask: Ask, shape: Shape, *, from_us: int | None, to_us: int | None, span: int, most: int
) -> Datapoints:
    """The datapoints of [from, to), in order of time, with `average`, `previous` and `change` where
    they are asked for; spans of `span` milliseconds, `most` datapoints at most. Raises MetricError.
    """
    shape.check(span)
    if shape == Shape():
        return ask(from_us, to_us)
    before = (shape.window - 1) * span * 1000
    points = ask(_moved(from_us, -before), to_us)
    past: Datapoints = []
    if shape.back:
        past = ask(_moved(from_us, -shape.back * 1000), _moved(to_us, -shape.back * 1000))
    grid = _grid(points, past, shape, from_us, to_us, span)
    # Without a datapoint there are no series, and still the spans are looked at.
    if max(1, len(grid.keys)) * grid.length > most:
        raise MetricError(
            f"granularity: these are more than {most} datapoints; ask for longer spans, less time or"
            " fewer dimensions"
        )
    values = filled(grid.matrix(points), shape.fill)
    columns = {"value": values}
    if shape.window > 1:
        columns["average"] = averaged(values, shape.window)
    if shape.back:
        columns["previous"] = filled(grid.matrix(past, shape.back), shape.fill)
        columns["change"] = values - columns["previous"]
    return _shown(grid, columns, points, shape, from_us)


def filled(values: Matrix, fill: Fill) -> Matrix:
    """The values with gaps filled; those before the first value, and with `linear` those after the
    last, stay empty unless zero fills them.
    """
    empty = np.isnan(values)
    if fill == "zero":
        return np.where(empty, 0.0, values)
    places = np.arange(values.shape[1])
    if fill == "previous":
        last = np.maximum.accumulate(np.where(empty, -1, places), axis=1)
        taken = np.take_along_axis(values, np.maximum(last, 0), axis=1)
        return np.where(last < 0, np.nan, taken)
    if fill != "linear":
        return values
    rows = []
    for row, gaps in zip(values, empty, strict=True):
        known = places[~gaps]
        rows.append(
            np.interp(places, known, row[~gaps], left=np.nan, right=np.nan) if len(known) else row
        )
    return np.array(rows).reshape(values.shape)


def averaged(values: Matrix, window: int) -> Matrix:
    """The mean of each span and the `window` - 1 before it, as far as they have values."""
    known = ~np.isnan(values)
    given = np.where(known, values, 0.0)
    counts, sums = known.astype(np.int64), given.copy()
    # Moved and added: all windows at once of 100,000 spans are 800 MB.
    for back in range(1, min(window, values.shape[1])):
        counts[:, back:] += known[:, :-back]
        sums[:, back:] += given[:, :-back]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _grid(
    points: Datapoints,
    past: Datapoints,
    shape: Shape,
    from_us: int | None,
    to_us: int | None,
    span: int,
) -> Grid:
    stamps = [p["timestamp"] for p in points] + [p["timestamp"] + shape.back for p in past]
    phase = (stamps[0] if stamps else _MONDAY_MS) % span
    keys = list(dict.fromkeys(_key(p) for p in (*points, *past)))
    if from_us is not None:
        first = _floor(from_us // 1000, phase, span) - (shape.window - 1) * span
    else:
        first = min(stamps, default=0)
    # Where nobody says the end, what is compared must not make spans of days to come.
    ends = [p["timestamp"] for p in points] or stamps
    if to_us is not None:
        last = _floor(-(-to_us // 1000) - 1, phase, span)
    else:
        last = max(ends, default=first - span)
    return Grid(keys, first, span, max(0, (last - first) // span + 1))


def _shown(
    grid: Grid,
    columns: dict[str, Matrix],
    points: Datapoints,
    shape: Shape,
    from_us: int | None,
) -> Datapoints:
    """The cells as datapoints. Values that were there stay as they are: integers keep their digits."""
    given = {(_key(p), p["timestamp"]): p["value"] for p in points}
    hidden = shape.window - 1 if from_us is not None else 0
    lists = {name: _plain(matrix) for name, matrix in columns.items()}
    shown = []
    for column in range(hidden, grid.length):
        at = grid.first + column * grid.span
        for row, key in enumerate(grid.keys):
            value = given.get((key, at))
            if value is None:
                if shape.fill == "none":
                    continue
                value = lists["value"][row][column]
            more = {name: lists[name][row][column] for name in columns if name != "value"}
            shown.append({"timestamp": at, "value": value, "dimensions": dict(key), **more})
    return shown


def _plain(matrix: Matrix) -> list[list[float | None]]:
    return [[None if v != v else v for v in row] for row in matrix.tolist()]


def _key(point: dict[str, Any]) -> Key:
    return tuple(point["dimensions"].items())


def _floor(ms: int, phase: int, span: int) -> int:
    return (ms - phase) // span * span + phase


def _moved(micros: int | None, by: int) -> int | None:
    return None if micros is None else micros + by
