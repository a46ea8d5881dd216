"""A query for one value of a payload field: what the indexes tell, and that the answer is a scan's."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.payload_index import PayloadIndex
from dc_platform.lake.rewrite import SORTED, write_rows
from dc_platform.lake.table import LakeTable
from dc_platform.serving.answers import answer
from dc_platform.serving.query import Query
from dc_platform.serving.view import View
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.lake import DAY, older, silver_row, silver_table, write_silver
from dc_platform_tests.helpers.serving import Served

FIELDS = ("userId", "user.id")

# What a payload may have as a value: texts of JSON, the same number or text in several spellings.
VALUES = [
    *("7", "7.0", "7e0", '"7"', '" 7"', '"7.0"', '"07"', '"+7"', "70e-1", "-7"),
    *("0", "-0", "-0.0", '"-0"', '"0"', "0.1", '"0.1"', "0.10", "1e400", '"1e400"', "1e308"),
    *('"Infinity"', '"nan"', '"NaN"', "null", '"null"', "true", '"true"', "false", '""', '" "'),
    *("9007199254740992", "9007199254740993", '"9007199254740993"', "9.007199254740993e15"),
    *(
        "123456789012345678901234567890123456789012",
        '"12345678901234567890"',
        "18446744073709551616",
    ),
    *('"u-1"', r'"\u0075-1"', '"u-1 "', '"é"', r'"\u00e9"', '"😀"', r'"\ud83d\ude00"', r'"a\"b"'),
    *(r'"a\\b"', r'"a\nb"', "[]", "[7]", '{"id": 7}', '{"id":"u-1"}', '{"id": {"id": 1}}'),
]
ASKED = [
    *(7, 7.0, -7, "7", "7.0", " 7", "07", 0, -0.0, "-0", 0.1, "0.1", "0.10", 1e308, 10**400, "inf"),
    *("Infinity", "nan", "null", True, "true", False, "", " ", 2**53, 2**53 + 1, str(2**53 + 1)),
    *(123456789012345678901234567890123456789012, 2**64, "18446744073709551616"),
    *("u-1", "u-1 ", "é", "😀", 'a"b', "a\\b", "a\nb", "[]", "[7]", '{"id":7}', '{"id": 7}', None),
]
# Rows of older releases may have anything.
BROKEN = ["", "nonsense", '{"userId":', '{"userId":"u-1"} x', "[7]", '"u-1"', "{'userId':7}", "NaN"]
SHAPES = [
    '{"userId":%s}',
    '{"a":[1,{"userId":7}], "userId" : %s , "z":null}',
    '{"userId":7,"userId":%s}',
    r'{"\u0075serId":%s}',
    '{"user":{"id":%s}}',
    '{"user":%s,"userId":"u-1"}',
    '{"userid":%s}',
    '{"user.id":%s,"userId.x":7}',
]
payloads = st.lists(
    st.one_of(
        st.builds(
            lambda shape, value: shape % value, st.sampled_from(SHAPES), st.sampled_from(VALUES)
        ),
        st.sampled_from(BROKEN),
    ),
    min_size=5,
    max_size=60,
)


class Both:
    """A lake that one engine asks by its indexes, and another one without."""

    def __init__(self, directory: Path) -> None:
        self.served = Served(directory / "served", query_cache_mb=0, recent_memory_mb=0)
        self.lake = self.served.lake
        self.lake.ensure(SILVER_EVENTS)
        self.plain = Served(
            directory / "plain", lake_uri=self.served.settings.lake, query_cache_mb=0
        )
        self.plain.engine._needles.narrow = lambda cursor, view, *more: view  # type: ignore[method-assign]
        self.index = PayloadIndex(self.lake, FIELDS)

    def write(
        self, texts: Sequence[str], *, first: int = 0, index: bool = True, **columns: Any
    ) -> str:
        """Commit a file of a closed hour, with its index; gives its path."""
        rows = [
            silver_row(number, payload=text, event_time=(NOW + number) * 1000, **columns)
            for number, text in enumerate(texts, first)
        ]
        path = f"ingest_date={DAY.isoformat()}/{SORTED}{uuid.uuid4()}.parquet"
        file = write_rows(self.lake, SILVER_EVENTS, path, DAY, [silver_table(rows)])
        LakeTable(self.lake, SILVER_EVENTS).commit([file], txns={}, exact=True)
        if index:
            self.index.build(path)
        return path

    def view(self, *paths: str) -> View:
        """Of some files; by default of all."""
        silver = LakeTable(self.lake, SILVER_EVENTS).snapshot()
        if paths:
            kept = [path in paths for path in silver.actions["path"].to_pylist()]
            silver = replace(silver, actions=silver.actions.filter(kept))
        return View(silver, {})

    def agree(self, view: View, *filters: tuple[str, str, Any], **more: Any) -> dict[str, Any]:
        """Hold that both give the same answer; what `index` of the plan says."""
        asked = [dict(zip(("field", "operator", "value"), each, strict=True)) for each in filters]
        query = Query.model_validate({"filters": asked, "explain": True, **more})
        found, plain = (
            answer(each.engine, view, query, tenant_id="default")
            for each in (self.served, self.plain)
        )
        shown: dict[str, Any] = found.pop("plan")["statements"][0].get("index", {})
        plain.pop("plan")
        for content in (found, plain):
            content.pop("executionTime")
        assert found == plain, filters
        return {**shown, "matching": found["totalCount"]}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("needles"))


@settings(max_examples=12, deadline=None)
@given(
    payloads,
    st.sampled_from([*FIELDS, "payload.userId", "user"]),
    st.lists(st.sampled_from(ASKED), min_size=1, max_size=3),
)
def test_answers_are_those_of_a_scan(
    both: Both, texts: list[str], field: str, values: list[Any]
) -> None:
    view = both.view(both.write(texts))
    for value in values:
        both.agree(view, (field, "=", value))
    both.agree(view, (field, "in", values), ("userId", "==", values[0]))
    both.agree(view, (field, "in", values), aggregations=[{"function": "COUNT"}])


def test_every_value_is_found_in_every_shape(both: Both) -> None:
    texts = [shape % value for shape in SHAPES for value in VALUES]
    view = both.view(both.write([*texts, *BROKEN]))
    matching = {
        json.dumps(value): both.agree(view, ("userId", "=", value))["matching"] for value in ASKED
    }
    assert matching["7"] > 20
    assert matching['"7"'] > 5
    assert sum(count > 0 for count in matching.values()) > 30


def test_only_rows_that_can_match_are_read(both: Both) -> None:
    texts = [f'{{"userId":"u-{number % 400}","n":{number}}}' for number in range(20_000)]
    paths = [both.write(texts), both.write(texts, first=100_000)]
    view = both.view(*paths)
    told = both.agree(view, ("userId", "=", "u-17"))
    assert told == {"used": True, "files": 2, "filesWithout": 0, "rows": 100, "matching": 100}
    told = both.agree(view, ("userId", "=", "u-17"), ("eventType", "=", "other"))
    assert (told["rows"], told["matching"]) == (100, 0)
    assert both.agree(view, ("userId", "=", "nobody"))["rows"] == 0
    # Of a time range's files alone.
    told = both.agree(view, ("userId", "=", "u-17"), to=NOW + 50_000)
    assert (told["files"], told["rows"]) == (1, 50)
    # Two conditions meet in few rows; a list has the rows of each of its values.
    assert both.agree(view, ("userId", "=", "u-1"), ("userId", "in", ["u-2", 3]))["rows"] == 0
    assert both.agree(view, ("userId", "in", ["u-1", "u-2", "u-2"]))["rows"] == 200


def test_another_tenants_rows_are_not_seen(both: Both) -> None:
    text = '{"userId":"u"}'
    view = both.view(both.write([text]), both.write([text] * 2, first=5, tenant_id="other"))
    told = both.agree(view, ("userId", "=", "u"))
    assert (told["files"], told["rows"], told["matching"]) == (2, 3, 1)


def test_what_no_index_knows_is_scanned(both: Both) -> None:
    texts = [f'{{"userId":"u-{number}","page":"p"}}' for number in range(50)]
    view = both.view(both.write(texts), both.write(texts, first=1000, index=False))
    told = both.agree(view, ("userId", "=", "u-7"))
    assert told == {"used": True, "files": 1, "filesWithout": 1, "rows": 1, "matching": 2}
    for condition in (
        ("page", "=", "p"),
        ("userId", "!=", "u-7"),
        ("userId", "in", ["u-7", None]),
        ("userId", "=", None),
        ("userId", "in", [f"u-{number}" for number in range(101)]),
    ):
        assert not both.agree(view, condition).get("used", False), condition


@pytest.mark.parametrize("limit", ["_MOST_ROWS", "_MOST_BYTES"])
def test_of_too_much_the_files_are_scanned(
    both: Both, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"dc_platform.serving.needles.{limit}", 49)
    view = both.view(both.write(['{"userId":"u"}'] * 50))
    told = both.agree(view, ("userId", "=", "u"))
    assert (told["used"], told["rows"], told["matching"]) == (limit != "_MOST_ROWS", 50, 50)


def test_large_events_are_read_few_at_a_time(both: Both) -> None:
    texts = [f'{{"userId":"u-{n % 3}","x":"{n:0100000}"}}' for n in range(300)]
    told = both.agree(both.view(both.write(texts)), ("userId", "=", "u-1"), limit=2)
    assert (told["rows"], told["matching"]) == (100, 100)


def test_files_that_lack_a_column_and_files_of_landing(both: Both) -> None:
    old = older(SILVER_EVENTS)
    path = f"ingest_date={DAY.isoformat()}/{SORTED}{uuid.uuid4()}.parquet"
    rows = silver_table([silver_row(5, payload='{"userId":"u-1"}')]).select(old.file_schema.names)
    file = write_rows(both.lake, old, path, DAY, [rows])
    landed = write_silver(both.lake, [silver_row(6, payload='{"userId":"u-1"}')])
    LakeTable(both.lake, SILVER_EVENTS).commit([file, landed], txns={}, exact=True)
    both.index.build(path)
    told = both.agree(both.view(path, landed.path), ("userId", "=", "u-1"))
    assert told == {"used": True, "files": 1, "filesWithout": 1, "rows": 1, "matching": 2}


def test_what_went_away_is_forgotten(both: Both) -> None:
    one, other = both.write(['{"userId":"u"}']), both.write(['{"userId":"u"}'])
    both.agree(both.view(one, other), ("userId", "=", "u"))
    known = both.served.engine._needles
    assert {path for path in known._indexes if path.endswith((one, other))}
    LakeTable(both.lake, SILVER_EVENTS).rewrite(
        [one, other], write_silver(both.lake, [silver_row(1)] * 2), metadata={}
    )
    both.agree(both.view(), ("userId", "=", "u"))
    assert not {path for path in known._indexes if path.endswith((one, other))}


def test_a_file_that_is_gone_is_told_of(both: Both) -> None:
    path = both.write(['{"userId":"u"}'])
    view = both.view(path)
    both.lake.remove(SILVER_EVENTS, path)
    with pytest.raises(Exception, match="No files found"):
        both.agree(view, ("userId", "=", "u"))
