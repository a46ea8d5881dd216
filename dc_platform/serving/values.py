"""The values of an Arrow array as JSON has them.

Times become ISO 8601 in UTC (also where Python has none: years past 9999, infinity), integers of any
width and decimals stay numbers with all their digits, bytes that are not UTF-8 become base64.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_encode = msgspec.json.Encoder().encode
# What Python's datetime can hold, in units of a timestamp.
_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INFINITE_DATE, _INFINITE_TIME = 2**31 - 1, 2**63 - 1


def jsonable(value: Any) -> Any:
    """A value of Python as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds" if not value.microsecond % 1000 else "auto")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        # As it is written: a float would lose digits.
        return msgspec.Raw(format(value, "f").encode())
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, list):
        if value and isinstance(value[0], tuple) and len(value[0]) == 2:
            return {str(k): jsonable(v) for k, v in value}
        return [jsonable(v) for v in value]
    if isinstance(value, dict):
        return {k: jsonable(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [jsonable(v) for v in value]
    return value


def values(array: pa.Array) -> list[Any]:
    """The values of an array as JSON has them."""
    type_ = array.type
    if pa.types.is_integer(type_) or pa.types.is_string(type_) or pa.types.is_boolean(type_):
        plain: list[Any] = array.to_pylist()
        return plain
    if isinstance(type_, pa.OpaqueType) and type_.type_name == "bignum":
        return [None if v is None else _bignum(v) for v in array.storage.to_pylist()]
    if pa.types.is_timestamp(type_):
        return _timestamps(array)
    if pa.types.is_date(type_):
        return _dates(array)
    if pa.types.is_time64(type_) and type_.unit == "ns":
        array = array.cast(pa.time64("us"), safe=False)
    elif pa.types.is_map(type_):
        keys = [v if isinstance(v, str) else as_text(v) for v in values(array.keys)]
        pairs = list(zip(keys, values(array.items), strict=True))
        return [None if at is None else dict(pairs[at]) for at in _slices(array)]
    elif pa.types.is_list(type_):
        flat = values(array.values)
        return [None if at is None else flat[at] for at in _slices(array)]
    elif pa.types.is_fixed_size_list(type_):
        rest = iter(values(array.flatten()))
        size = type_.list_size
        return [[next(rest) for _ in range(size)] if v else None for v in _valid(array)]
    elif pa.types.is_struct(type_):
        return _structs(array)
    try:
        return [jsonable(value) for value in array.to_pylist()]
    except (OverflowError, ValueError) as error:
        raise pa.ArrowInvalid(f"a value of type {type_} cannot be written: cast it") from error


def texts(array: pa.Array) -> list[str | None]:
    """The values of an array as text; what is nested is JSON."""
    return [
        value if value is None or isinstance(value, str) else as_text(value)
        for value in values(array)
    ]


def as_text(value: Any) -> str:
    """A value of `values` as JSON text."""
    return _encode(value).decode()


def _valid(array: pa.Array) -> list[bool]:
    valid: list[bool] = array.is_valid().to_pylist()
    return valid


def _slices(array: pa.Array) -> Iterator[slice | None]:
    """Where each list of an array lies among the values."""
    offsets = array.offsets.to_pylist()
    for start, end, valid in zip(offsets, offsets[1:], _valid(array), strict=False):
        yield slice(start, end) if valid else None


def _structs(array: pa.Array) -> list[Any]:
    names = [field.name for field in array.type]
    columns = [values(column) for column in array.flatten()]
    if not any(names):
        # row(1, 2): the members have a place only.
        rows: list[Any] = [list(row) for row in zip(*columns, strict=True)]
    else:
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return [row if valid else None for row, valid in zip(rows, _valid(array), strict=True)]


def _bignum(stored: bytes) -> msgspec.Raw:
    """DuckDB's form: three bytes of sign and length, the magnitude; a negative one's bits are
    inverted.
    """
    negative = stored[0] < 128
    body = bytes(255 - b for b in stored[3:]) if negative else stored[3:]
    number = int.from_bytes(body, "big")
    # By way of Decimal: Python refuses to print integers of more than 4300 digits.
    return msgspec.Raw(str(Decimal(-number if negative else number)).encode())


def _timestamps(array: pa.Array) -> list[Any]:
    unit, zone = array.type.unit, array.type.tz
    per_second = _PER_SECOND[unit]
    bounds = pc.min_max(array.cast(pa.int64()))
    low, high = bounds["min"].as_py(), bounds["max"].as_py()
    # In nanoseconds infinity is a time that Python has.
    low_end, high_end = -_INFINITE_TIME + 1, _INFINITE_TIME
    if low is None or (
        max(_YEAR_1 * per_second, low_end) <= low and high < min(_YEAR_10000 * per_second, high_end)
    ):
        if unit == "ns":
            array = array.cast(pa.timestamp("us", zone), safe=False)
        return [jsonable(value) for value in array.to_pylist()]
    suffix = "+00:00" if zone else ""
    return [_instant(v, per_second, suffix) for v in array.cast(pa.int64()).to_pylist()]


def _instant(value: int | None, per_second: int, suffix: str) -> str | None:
    if value is None:
        return None
    if abs(value) == _INFINITE_TIME:
        return "infinity" if value > 0 else "-infinity"
    seconds, rest = divmod(value, per_second)
    microseconds = rest * 10**6 // per_second
    fraction = f".{microseconds // 1000:03}" if not microseconds % 1000 else f".{microseconds:06}"
    return f"{np.datetime64(seconds, 's')}{fraction}{suffix}"


def _dates(array: pa.Array) -> list[Any]:
    try:
        return [jsonable(value) for value in array.to_pylist()]
    except (OverflowError, ValueError):
        return [_day(v) for v in array.cast(pa.int32()).to_pylist()]


def _day(value: int | None) -> str | None:
    if value is None:
        return None
    if abs(value) == _INFINITE_DATE:
        return "infinity" if value > 0 else "-infinity"
    return str(np.datetime64(value, "D"))
