"""Reference tables and typed views in SQL: of one tenant, over the union, whatever payloads hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dc_platform.contracts.shapes import Enrichment, Shape, TypedField
from dc_platform.errors import ConfigurationError
from dc_platform.lake.reference import References
from dc_platform.serving.engine import Engine
from dc_platform.serving.guard import RefusedError
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.records import SOURCE, block, gateway_line
from dc_platform_tests.helpers.serving import Served, view

AIRPORTS = pa.table(
    {"code": ["ANC", "LAX"], "city": ["Anchorage", "Los Angeles"], "lat": [61.2, 33.9]}
)
FIELDS = (
    TypedField("origin", "STRING"),
    TypedField("delay", "NUMBER"),
    TypedField("cart.total", "NUMBER", 7),
    TypedField("delayed", "BOOLEAN"),
    TypedField("legs", "ARRAY"),
    TypedField("source_id", "STRING", 'it\'s "mine"'),
)
SHAPE = Shape("flights", (SOURCE,), None, FIELDS, (Enrichment("origin", "airports"),))


def line(number: int, payload: bytes, event_type: bytes = b"t") -> bytes:
    return gateway_line(
        b'{"eventId":"%s","eventType":"%s","timestamp":%d,"payload":%s}'
        % (some_uuid(number).encode(), event_type, NOW + number, payload)
    )


def serve(directory: Path, shape: Shape = SHAPE) -> Served:
    served = Served(directory)
    landed = [
        block([line(0, b'{"origin":"ANC","delay":1.50,"cart":{"total":3},"legs":[1,2.50]}')], 0),
        block([line(1, b'{"origin":7,"delay":"late","delayed":true,"cart":{"total":null}}')], 1),
    ]
    tail = [[block([line(2, b'{"origin":"XXX","delay":-3,"source_id":"s"}', b"other")], 2)]]
    served.view = view(served.lake, landed, tail)
    References(served.lake).put("default", "airports", AIRPORTS, "code")
    served.engine = Engine(
        served.settings,
        served.lake,
        lambda tenant: {"flights": shape} if tenant == "default" else {},
    )
    return served


def test_a_typed_view_has_typed_columns_of_landed_events_and_of_the_tail(tmp_path: Path) -> None:
    served = serve(tmp_path)
    found = served.sql(
        "select origin, delay, cart_total, delayed, legs, payload_source_id, airports_city, payload"
        " from typed.flights order by event_time"
    )
    mine = 'it\'s "mine"'
    assert [row[:7] for row in found] == [
        ("ANC", 1.5, 3.0, None, "[1,2.5]", mine, "Anchorage"),
        (None, None, None, True, None, mine, None),
        ("XXX", -3.0, 7.0, None, None, "s", None),
    ]
    assert found[0][7] == '{"origin":"ANC","delay":1.50,"cart":{"total":3},"legs":[1,2.50]}'
    types = {name: type_ for name, type_, *_ in served.sql("describe select * from typed.flights")}
    assert (types["delay"], types["delayed"], types["airports_lat"]) == (
        "DOUBLE",
        "BOOLEAN",
        "DOUBLE",
    )


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        (SHAPE._replace(event_type="other"), 1),
        (SHAPE._replace(source_ids=()), 0),
        (SHAPE._replace(source_ids=("x' or true or '",)), 0),
        (SHAPE._replace(enrichments=(Enrichment("origin", "gone"),)), 3),
    ],
)
def test_it_has_the_events_of_its_sources_and_type(tmp_path: Path, shape: Shape, rows: int) -> None:
    assert serve(tmp_path, shape).sql("select count(*) from typed.flights") == [(rows,)]


def test_reference_tables_are_queried_and_replaced_at_once(tmp_path: Path) -> None:
    served = serve(tmp_path)
    joined = "select city from events e join ref.airports a on a.code = (e.payload ->> 'origin')"
    assert served.sql(joined) == [("Anchorage",)]
    References(served.lake).put(
        "default", "airports", pa.table({"code": ["XXX"], "city": ["Nowhere"]}), "code"
    )
    assert served.sql(joined) == [("Nowhere",)]
    assert served.sql("select ref.airports.city from ref.airports") == [("Nowhere",)]


@pytest.mark.parametrize("table", ["ref.airports", "typed.flights", "ref.none", "typed.none"])
def test_another_tenant_has_no_such_table(tmp_path: Path, table: str) -> None:
    served = serve(tmp_path)
    with pytest.raises(RefusedError, match="There is no table"):
        served.sql(f"select * from {table}", tenant="another")


def test_a_refusal_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"ref\.airports, typed\.flights"):
        serve(tmp_path).sql("select * from typed.flihgts")


@pytest.mark.parametrize("name", ["ref.../airports", '"ref"."a/../../x"', 'ref."airports\'"'])
def test_a_name_cannot_reach_other_files(tmp_path: Path, name: str) -> None:
    with pytest.raises((RefusedError, ConfigurationError)):
        serve(tmp_path).sql(f"select * from {name}")


@pytest.mark.parametrize(
    ("rows", "key", "says"),
    [
        ({"code": ["a", "a"]}, "code", "more than once, 'a'"),
        ({"code": ["a", None]}, "code", "1 rows have no code"),
        ({"code": ["a"]}, "iata", "no column 'iata'"),
        ({"code": ["a"], "CODE": ["b"]}, "code", "each name once"),
        ({"code": ["a"], "a b": ["b"]}, "code", "a b"),
        ({"code": []}, "code", "1 to"),
    ],
)
def test_what_is_no_reference_table_is_refused(
    tmp_path: Path, rows: dict[str, Any], key: str, says: str
) -> None:
    served = serve(tmp_path)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in rows.items()})
    with pytest.raises(ConfigurationError, match=says):
        References(served.lake).put("default", "airports", table, key)
    assert served.sql("select count(*) from ref.airports") == [(2,)]
