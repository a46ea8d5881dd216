"""Rows as JSON, CSV and Arrow: integers of any width, times of any year, names that stand twice."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from dc_platform.serving.results import arrow_stream, csv_text, json_array

CONNECTION = duckdb.connect()
CONNECTION.execute("set TimeZone = 'UTC'")


def reader(sql: str, batch: int = 1000) -> pa.RecordBatchReader:
    return CONNECTION.execute(sql).to_arrow_reader(batch)


def as_json(sql: str) -> list[dict[str, Any]]:
    text = b"".join(json_array(reader(sql)))
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def as_csv(sql: str) -> list[list[str]]:
    text = b"".join(csv_text(reader(sql))).decode()
    return list(csv.reader(io.StringIO(text)))


# SQL of one value → (as JSON, as CSV)
VALUES: dict[str, tuple[Any, str]] = {
    "170141183460469231731687303715884105727::hugeint": (2**127 - 1, str(2**127 - 1)),
    "-170141183460469231731687303715884105727::hugeint": (-(2**127) + 1, str(-(2**127) + 1)),
    "18446744073709551615::ubigint": (2**64 - 1, str(2**64 - 1)),
    "(select sum(i) * 10::hugeint ** 0 from range(5) t(i))::hugeint": (10, "10"),
    "(select sum(9223372036854775807) from range(3))": (3 * (2**63 - 1), str(3 * (2**63 - 1))),
    "1.50::decimal(5, 2)": (1.5, "1.50"),
    "1.5::double": (1.5, "1.5"),
    "'nan'::double": (None, ""),
    "'-inf'::double": (None, ""),
    "true": (True, "true"),
    "null": (None, ""),
    "null::int": (None, ""),
    "'a,\"b\"\n'": ('a,"b"\n', 'a,"b"\n'),
    "''": ("", ""),
    "'ü€\U0001f600'": ("ü€\U0001f600", "ü€\U0001f600"),
    "[1, null, 3]": ([1, None, 3], "[1,null,3]"),
    "{'a': 1, 'b': [2]}": ({"a": 1, "b": [2]}, '{"a":1,"b":[2]}'),
    "map {'k': 'v'}": ({"k": "v"}, '{"k":"v"}'),
    "map {}::map(varchar, varchar)": ({}, "{}"),
    "null::map(varchar, varchar)": (None, ""),
    "[map {1: 2}]": ([{"1": 2}], '[{"1":2}]'),
    "'\\xFFa'::blob": ("/2E=", "/2E="),
    "'abc'::blob": ("abc", "abc"),
    "'00000000-0000-0000-0000-00000000000a'::uuid": (
        "00000000-0000-0000-0000-00000000000a",
        "00000000-0000-0000-0000-00000000000a",
    ),
    "'b'::enum('a', 'b')": ("b", "b"),
    "row(1, 'a')": ([1, "a"], '[1,"a"]'),
    "[row(1, 2), null]": ([[1, 2], None], "[[1,2],null]"),
    "{'a': null, 'b': {'c': [[1], []]}}": (
        {"a": None, "b": {"c": [[1], []]}},
        '{"a":null,"b":{"c":[[1],[]]}}',
    ),
    "null::struct(a int)": (None, ""),
    "null::int[]": (None, ""),
    "array_value(1, 2)": ([1, 2], "[1,2]"),
    "null::int[2]": (None, ""),
    "union_value(n := 2)": (2, "2"),
    "'infinity'::timestamp": ("infinity", "infinity"),
    "'-infinity'::timestamptz": ("-infinity", "-infinity"),
    "'infinity'::timestamp_s": ("infinity", "infinity"),
    "'-infinity'::timestamp_ns": ("-infinity", "-infinity"),
    "'infinity'::date": ("infinity", "infinity"),
    "timestamp '290000-01-01 00:00:00.5'": (
        "290000-01-01T00:00:00.500",
        "290000-01-01T00:00:00.500",
    ),
    "timestamptz '12000-01-01 00:00:00.000001+00'": (
        "12000-01-01T00:00:00.000001+00:00",
        "12000-01-01T00:00:00.000001+00:00",
    ),
    "date '12000-02-29'": ("12000-02-29", "12000-02-29"),
    "['infinity'::timestamp, null]": (["infinity", None], '["infinity",null]'),
    "{'a': '-infinity'::date}": ({"a": "-infinity"}, '{"a":"-infinity"}'),
    "map {'infinity'::timestamp: 1}": ({"infinity": 1}, '{"infinity":1}'),
    "time_ns '10:00:00.123456789'": ("10:00:00.123456", "10:00:00.123456"),
    "date '2024-02-29'": ("2024-02-29", "2024-02-29"),
    "time '10:00:00'": ("10:00:00", "10:00:00"),
    "timestamptz '2024-01-01 01:00:00+01'": (
        "2024-01-01T00:00:00.000+00:00",
        "2024-01-01T00:00:00.000+00:00",
    ),
    "timestamptz '2024-01-01 00:00:00.000001+00'": (
        "2024-01-01T00:00:00.000001+00:00",
        "2024-01-01T00:00:00.000001+00:00",
    ),
    "timestamp '0001-01-01 00:00:00'": ("0001-01-01T00:00:00.000", "0001-01-01T00:00:00.000"),
    "timestamp_ns '2024-01-01 00:00:00.000000001'": (
        "2024-01-01T00:00:00.000",
        "2024-01-01T00:00:00.000",
    ),
}


@pytest.mark.parametrize("value", VALUES)
def test_values(value: str) -> None:
    in_json, in_csv = VALUES[value]
    [row] = as_json(f"select {value} as v")
    assert row == {"v": in_json}
    assert type(row["v"]) is type(in_json)
    assert as_csv(f"select {value} as v, 'x' as x") == [["v", "x"], [in_csv, "x"]]


@pytest.mark.parametrize(
    "value",
    [
        "'infinity'::timestamp",
        "'-infinity'::timestamptz",
        "'infinity'::date",
        "'-0001-01-01'::date",
        "'20000-01-01'::timestamptz",
    ],
)
def test_times_that_python_has_not_are_text(value: str) -> None:
    [row] = as_json(f"select {value} as v")
    assert isinstance(row["v"], str)
    assert as_csv(f"select {value} as v")[1] == [row["v"]]


def test_names_that_stand_twice_are_told_apart() -> None:
    sql = "select 1 as a, 2 as a, 3 as a_1, 4 as a, 5 as b"
    names = ["a", "a_2", "a_1", "a_3", "b"]
    assert as_json(sql) == [dict(zip(names, range(1, 6), strict=True))]
    assert as_csv(sql) == [names, ["1", "2", "3", "4", "5"]]


def test_decimals_keep_their_digits() -> None:
    digits = "12345678901234567890.0123456789"
    sql = f"select {digits}::decimal(38, 10) as v, [0.10::decimal(3, 2)] as l, 0::decimal(20, 10) as z"
    text = b"".join(json_array(reader(sql))).decode()
    assert text == '[{"v":' + digits + ',"l":[0.10],"z":0.0000000000}]\n'


def test_slices_of_nested_values() -> None:
    """The writers cut batches; what is nested knows its own place."""
    sql = (
        "select i, case when i % 3 > 0 then [i, -i] end as l, map {'k': i} as m, {'a': i} as s,"
        " array_value(i, i) as f from range(4100) t(i) order by i"
    )
    assert as_json(sql) == [
        {"i": i, "l": [i, -i] if i % 3 else None, "m": {"k": i}, "s": {"a": i}, "f": [i, i]}
        for i in range(4100)
    ]


def test_hostile_names() -> None:
    sql = 'select 1 as "a,""b""\n", 2 as ""'
    [row] = as_json('select 1 as "a,""b""\n"')
    assert row == {'a,"b"\n': 1}
    with pytest.raises(duckdb.Error):
        reader(sql)
    assert as_csv('select 1 as "a,""b""\n"')[0] == ['a,"b"\n']


@pytest.mark.parametrize("rows", [0, 1, 2, 1999, 2000, 2001, 7000])
def test_all_rows_in_their_order(rows: int) -> None:
    sql = f"select i, 'n' || i as name from range({rows}) t(i) order by i"
    assert as_json(sql) == [{"i": i, "name": f"n{i}"} for i in range(rows)]
    assert as_csv(sql) == [["i", "name"], *([str(i), f"n{i}"] for i in range(rows))]
    stream = b"".join(arrow_stream(reader(sql)))
    table = pa.ipc.open_stream(stream).read_all()
    assert table["i"].to_pylist() == list(range(rows))


def test_rows_are_streamed() -> None:
    """The first part of an answer comes before the last row was asked for."""
    asked: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(5):
            asked.append(number)
            yield pa.record_batch({"i": [number]})

    source = pa.RecordBatchReader.from_batches(pa.schema([("i", pa.int64())]), batches())
    parts = json_array(source)
    assert next(parts) == b"["
    assert next(parts) == b'{"i":0}'
    assert len(asked) < 5
    assert b"".join(parts) == b',\n{"i":1},\n{"i":2},\n{"i":3},\n{"i":4}]\n'
