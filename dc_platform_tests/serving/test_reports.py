"""Saved reports: who may change and run them, parameters as values, and every format."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import pyarrow as pa
import pytest

from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.serving import reports
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.events import NOW
from dc_platform_tests.helpers.records import SOURCE
from dc_platform_tests.helpers.serving import Served
from dc_platform_tests.helpers.serving_http import Door

# The served lake has events 0 to 11 of type t, at NOW + n seconds, 8 of them in silver.
SQL = {
    "sql": "select (payload ->> 'n')::int as n from events where event_type = $kind"
    " and event_time >= $since order by n",
    "parameters": {"kind": {"default": "t"}, "since": {"type": "TIMESTAMP", "default": 0}},
}
QUERY = {
    "query": {
        "from": {"$parameter": "since"},
        "filters": [
            {"field": "eventType", "operator": "=", "value": {"$parameter": "kind"}},
            {"field": "n", "operator": "<", "value": {"$parameter": "below"}},
        ],
        "aggregations": [{"function": "COUNT", "groupBy": ["eventType"]}],
    },
    "parameters": {
        "kind": {},
        "since": {"type": "TIMESTAMP", "default": 0},
        "below": {"type": "NUMBER", "default": 1000},
    },
}


class Desk(Door):
    """A door with an administrator."""

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self.admin = Tokens(self.database).create(Scope.ADMIN)

    def ask(
        self, method: str, path: str = "", *, token: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.admin}", **more.pop("headers", {})}
        return request(self.app, method, f"/api/v1/reports{path}", headers=headers, **more)

    def run(self, name: str, **values: Any) -> httpx.Response:
        return self.ask("GET", f"/{name}/run", token=self.token, params=values)


@pytest.fixture(scope="module")
def desk(served: Served) -> Desk:
    made = Desk(served)
    for name, body in (("numbers", SQL), ("kinds", QUERY)):
        answer = made.ask("POST", json={"name": name, **body})
        assert answer.status_code == 201, answer.text
    return made


def test_reports_are_kept_changed_and_deleted(desk: Desk) -> None:
    body = {"name": "one", "sql": "select 1 as a", "description": "d"}
    made = desk.ask("POST", json=body).json()
    assert (made["sql"], made["parameters"], made["description"]) == ("select 1 as a", {}, "d")
    assert desk.ask("POST", json=body).status_code == 409
    assert desk.ask("GET", "/one", token=desk.token).json() == made
    names = [one["name"] for one in desk.ask("GET", token=desk.token).json()["reports"]]
    assert names == ["kinds", "numbers", "one"]
    changed = desk.ask("PUT", "/one", json={"sql": "select 2 as a"}).json()
    assert changed["createdAt"] == made["createdAt"]
    assert desk.run("one").json() == [{"a": 2}]
    assert desk.ask("DELETE", "/one").json() == {"success": True}
    for method, path in (("GET", "/one"), ("DELETE", "/one"), ("GET", "/one/run")):
        assert desk.ask(method, path).status_code == 404
    assert desk.ask("PUT", "/one", json={"sql": "select 1"}).status_code == 404


def test_changing_takes_an_administrator_and_each_tenant_has_its_own(desk: Desk) -> None:
    for method, path in (("POST", ""), ("PUT", "/numbers"), ("DELETE", "/numbers")):
        answer = desk.ask(method, path, token=desk.token, json={"name": "x", "sql": "select 1"})
        assert answer.status_code == 403
    assert request(desk.app, "GET", "/api/v1/reports").status_code == 401
    other = Tokens(desk.database).create(Scope.ADMIN, tenant_id="other")
    assert desk.ask("GET", token=other).json() == {"reports": []}
    assert desk.ask("GET", "/numbers/run", token=other).status_code == 404
    count = {"name": "numbers", "sql": "select count(*) as n, min(event_type) as t from events"}
    assert desk.ask("POST", token=other, json=count).status_code == 201
    [row] = desk.ask("GET", "/numbers/run", token=other).json()
    assert row == {"n": 2, "t": "secret"}
    assert len(desk.run("numbers").json()) == 12


def test_parameters_are_values(desk: Desk) -> None:
    assert [row["n"] for row in desk.run("numbers", since=NOW + 9_000).json()] == [9, 10, 11]
    iso = "2023-11-14T22:13:30+00:00"
    assert len(desk.run("numbers", since=iso).json()) == 2 if NOW == 1_700_000_000_000 else True
    assert desk.run("numbers", kind="t' or 1 = 1 --").json() == []
    assert desk.run("kinds", kind="t").json()["results"] == [{"eventType": "t", "count": 12}]
    assert desk.run("kinds", kind="t", below="4").json()["totalCount"] == 4
    assert desk.run("kinds", kind="t", since=NOW + 9_000).json()["totalCount"] == 3
    assert desk.run("kinds", kind="x' or 'a' = 'a").json()["totalCount"] == 0


def test_every_format(desk: Desk) -> None:
    text = desk.run("numbers", format="csv", limit=2).text
    assert list(csv.reader(io.StringIO(text))) == [["n"], ["0"], ["1"]]
    table = desk.run("numbers", format="table", limit=2).json()
    assert (table["rows"], table["more"]) == ([[0], [1]], True)
    arrow = pa.ipc.open_stream(desk.run("numbers", format="arrow").content).read_all()
    assert arrow["n"].to_pylist() == list(range(12))
    headers = {"Accept": "text/html, text/csv;q=0.9"}
    answer = desk.ask("GET", "/numbers/run", headers=headers)
    assert answer.headers["content-type"].startswith("text/csv")
    # A query's results as rows.
    assert desk.run("kinds", kind="t", format="csv").text == '"eventType","count"\n"t",12\n'
    read = pa.ipc.open_stream(desk.run("kinds", kind="t", format="arrow").content).read_all()
    assert read.to_pylist() == [{"eventType": "t", "count": 12}]
    assert desk.run("kinds", kind="none", format="csv").text == "\n"
    events = {"name": "events", "query": {"limit": 3}}
    assert desk.ask("POST", json=events).status_code == 201
    rows = list(csv.DictReader(io.StringIO(desk.run("events", format="csv", limit=2).text)))
    assert [(row["sourceId"], row["payload"][:4]) for row in rows] == [(SOURCE, '{"n"')] * 2
    desk.ask("DELETE", "/events")


def test_rows_of_different_columns_and_types(desk: Desk) -> None:
    by_type = {"groupBy": ["eventType"], "as": "value"}
    body = {
        "aggregations": [
            {"function": "COUNT"},
            {"function": "COUNT", **by_type},
            {"function": "MAX", "field": "sourceId", "groupBy": ["n"], "as": "value"},
            {"function": "TOPK", "field": "eventType", "as": "types"},
        ],
        "limit": 1,
    }
    assert desk.ask("POST", json={"name": "mixed", "query": body}).status_code == 201
    rows = list(csv.DictReader(io.StringIO(desk.run("mixed", format="csv").text)))
    assert list(rows[0]) == ["count", "eventType", "value", "n", "types"]
    assert rows[1] == {"count": "", "eventType": "t", "value": "12", "n": "", "types": ""}
    assert rows[2]["value"] == SOURCE
    assert rows[3]["types"] == '[{"value":"t","count":12}]'
    table = desk.run("mixed", format="table").json()
    kinds = {column["name"]: column["kind"] for column in table["columns"]}
    assert (kinds["count"], kinds["value"]) == ("number", "text")
    arrow = pa.ipc.open_stream(desk.run("mixed", format="arrow").content).read_all()
    assert arrow["value"].to_pylist() == [None, "12", SOURCE, None]
    desk.ask("DELETE", "/mixed")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 2.5], [1.0, None, 2.5]),
        ([2**60 + 1, 2.5], [str(2**60 + 1), "2.5"]),
        ([2**70, 1], [str(2**70), "1"]),
        ([2.5, True, "x"], ["2.5", "true", "x"]),
        ([None, None], [None, None]),
        ([{"a": 1}, None], ['{"a":1}', None]),
    ],
)
def test_a_column_has_one_type(values: list[Any], expected: list[Any]) -> None:
    assert reports._column(values).to_pylist() == expected


def test_the_past(desk: Desk) -> None:
    assert desk.served.view is not None
    version = desk.served.view.silver.version
    assert len(desk.run("numbers", asOf=version).json()) == 8
    assert desk.run("kinds", kind="t", asOf=str(version)).json()["totalCount"] == 8


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("kinds", {}, "parameter kind (TEXT) is missing"),
        ("numbers", {"since": "soon"}, "parameter since: 'soon' is no TIMESTAMP"),
        ("kinds", {"kind": "t", "below": "nan"}, "parameter below: 'nan' is no NUMBER"),
        ("numbers", {"sql": "select 1"}, "sql is no parameter of the report; it has kind, since"),
        ("numbers", {"format": "xml"}, "format should be 'json'"),
        ("numbers", {"limit": "0"}, "limit should be greater"),
    ],
)
def test_a_run_that_makes_no_sense(
    desk: Desk, name: str, values: dict[str, Any], words: str
) -> None:
    answer = desk.run(name, **values)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"sql": "drop table events"}, "Only SELECT is let through"),
        ({"sql": "select * from read_text('/etc/passwd')"}, "is not let through"),
        ({"sql": "select $a"}, "names $a, which is not defined"),
        ({"sql": "select ?"}, "which is not defined"),
        ({"sql": "select 1", "parameters": {"a": {}}}, "a is not used"),
        ({"sql": "select $limit", "parameters": {"limit": {}}}, "'limit' is not like first_day"),
        (
            {"sql": "select $a", "parameters": {"a": {"type": "NUMBER", "default": "x"}}},
            "no NUMBER",
        ),
        ({"sql": "select 1", "query": {}}, "either sql or query"),
        ({}, "either sql or query"),
        ({"query": {"filters": [{"field": "a"}]}}, "query: filters[0].operator is missing"),
        ({"query": {"from": {"$parameter": "a"}}}, "names $a, which is not defined"),
        ({"name": "No such name", "sql": "select 1"}, "name: 'No such name'"),
    ],
)
def test_a_report_that_could_not_run_is_not_saved(
    desk: Desk, body: dict[str, Any], words: str
) -> None:
    answer = desk.ask("POST", json={"name": "wrong", **body})
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]
    assert desk.ask("GET", "/wrong").status_code == 404
