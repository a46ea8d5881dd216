"""Types that Arrow has not, through the engine: integers of any width, and others as text."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from dc_platform.serving.guard import RefusedError
from dc_platform_tests.helpers.serving import Served, view

MAX = 2**128 - 1
HUGE = 7**5000  # 4226 digits


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    made = Served(tmp_path_factory.mktemp("served"))
    made.view = view(made.lake, [])
    return made


def as_json(served: Served, sql: str) -> str:
    assert served.view is not None
    with served.engine.run_sql(sql, served.view, tenant_id="default", format_="json") as parts:
        return b"".join(parts).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{MAX}::uhugeint", str(MAX)),
        ("md5_number('b')", str(2**128 - 149750030552373788046256512903076123758)),
        ("null::uhugeint", "null"),
        ("0::bignum", "0"),
        ("-5::bignum", "-5"),
        ("-256::bignum", "-256"),
        (f"'-{HUGE}'::bignum", f"-{HUGE}"),
        ("repeat('9', 6000)::bignum", "9" * 6000),
        (f"[{MAX}::uhugeint, null]", f"[{MAX},null]"),
        (f"{{'a \"b': {MAX}::uhugeint, 'c': 'x'}}", f'{{"a \\"b":{MAX},"c":"x"}}'),
        (f"map {{'k': [{MAX}::uhugeint]}}", f'{{"k":[{MAX}]}}'),
        (f"array_value({MAX}::uhugeint)", f"[{MAX}]"),
        ("'101'::bit", '"101"'),
        ("'10:00:00+01'::timetz", '"10:00:00+01"'),
    ],
    ids=lambda text: text[:40],
)
def test_values(served: Served, value: str, expected: str) -> None:
    assert as_json(served, f"select {value} as v") == f'[{{"v":{expected}}}]\n'


def test_the_rows_keep_their_order_and_names(served: Served) -> None:
    sql = "select i as a, i::uhugeint as a from range(5000) t(i) order by i desc"
    rows = json.loads(as_json(served, sql))
    assert rows == [{"a": i, "a_1": i} for i in reversed(range(5000))]


def test_parameters_stay_in_their_place(served: Served) -> None:
    assert served.view is not None
    with served.engine.run_sql(
        "select ?::uhugeint as v, ? as w",
        served.view,
        tenant_id="default",
        parameters=[1, "x"],
        format_="csv",
    ) as parts:
        assert b"".join(parts) == b'"v","w"\n"1","x"\n'


def test_arrow_has_the_digits(served: Served) -> None:
    table = served.table(f"select {MAX}::uhugeint as v, 1::hugeint as h")
    assert table.to_pylist() == [{"v": str(MAX), "h": Decimal(1)}]


def test_what_cannot_be_cast_is_told(served: Served) -> None:
    with pytest.raises(RefusedError, match="Name the members of STRUCT"):
        as_json(served, "select row(1::uhugeint) as v")
