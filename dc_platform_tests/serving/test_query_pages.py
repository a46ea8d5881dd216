"""Pages, order, spans of time, weights and most frequent values of POST /api/v1/query."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dc_platform.contracts.fields import QueryError, seconds_of, span_sql
from dc_platform.serving.query import Compiled, Query
from dc_platform.serving.rows import QueryTimeoutError
from dc_platform_tests.gold.lakes import land
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.lake import silver_row
from dc_platform_tests.serving.planned import Planned

START = NOW - NOW % HOUR


def at(number: int, hours: float, **columns: Any) -> dict[str, Any]:
    return silver_row(number, event_time=(START + int(hours * HOUR)) * 1000, **columns)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """Events that share a time and an id, some sampled."""
    made = Planned(tmp_path_factory.mktemp("lake"))
    rows = [at(n, n // 4, payload=f'{{"page":"/{n % 3}","v":{n}}}') for n in range(20)]
    same = [at(30 + n, 2, source_id=f"s{n}", event_id="x", event_type="u") for n in range(3)]
    sampled = [at(40, 7, payload='{"page":"/s","v":1}', sample_rate=0.3)]
    land(made.lake, [*rows, *same, *sampled])
    return made


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 3, 7, 24, 25])
def test_pages_have_every_event_once_whatever_comes_meanwhile(
    planned: Planned, direction: str, limit: int
) -> None:
    order = [{"field": "timestamp", "direction": direction}]
    whole = planned.ask(planned.view(), orderBy=order)["results"]
    found: list[Any] = []
    cursor, page = None, 0
    while page == 0 or cursor is not None:
        # Newer and older than all that there is: nothing of it lies between two pages.
        tail = [at(100 + page, 90), at(200 + page, -90)] if page else []
        view = planned.view(*([tail] if tail else []))
        more = {} if cursor is None else {"cursor": cursor}
        answer = planned.ask(view, orderBy=order, limit=limit, **more)
        found += answer["results"]
        cursor, page = answer.get("nextCursor"), page + 1
    shown = [(e["timestamp"], e["eventId"], e["sourceId"]) for e in found]
    known = [(e["timestamp"], e["eventId"], e["sourceId"]) for e in whole]
    assert len(set(known)) == 24
    assert [event for event in shown if event in known] == known


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"cursor": "no"}, "cursor: send the nextCursor"),
        ({"cursor": "WzEsMiwzXQ=="}, "cursor: send the nextCursor"),
        ({"cursor": "x", "aggregations": [{"function": "COUNT"}]}, "cursor: "),
        ({"orderBy": [{"field": "duration"}]}, "orderBy: events are ordered by timestamp"),
        (
            {"orderBy": [{"field": "n"}], "aggregations": [{"function": "COUNT"}]},
            "orderBy: 'n' is no column of the results; there are count",
        ),
        (
            {"filters": [{"field": "metadata.sent", "operator": "exists"}]},
            "field 'metadata.sent' is unknown: there are metadata.receivedAt",
        ),
        (
            {"aggregations": [{"function": "COUNT", "groupBy": ["timestamp:1w"]}]},
            "groupBy 'timestamp:1w': after the colon a number and s, m, h or d",
        ),
        ({"aggregations": [{"function": "TOPK"}]}, "aggregation TOPK needs a field"),
        (
            {
                "orderBy": [{"field": "topk_v"}],
                "aggregations": [{"function": "TOPK", "field": "v"}, {"function": "COUNT"}],
            },
            "orderBy: 'topk_v' is a list of values; order by its groupBy",
        ),
    ],
)
def test_what_makes_no_sense_names_the_member(query: dict[str, Any], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        Compiled(Query.model_validate(query))


def test_groups_come_in_the_order_that_is_asked_for(planned: Planned) -> None:
    def ask(order: list[dict[str, str]], **query: Any) -> list[Any]:
        asked = [{"function": "COUNT", "groupBy": ["timestamp:1h", "eventType"], "as": "n"}]
        answer = planned.ask(planned.view(), aggregations=asked, orderBy=order, **query)
        return [(r["timestamp:1h"], r["eventType"], r["n"]) for r in answer["results"]]

    rows = ask([])
    assert rows == sorted(rows, key=lambda r: (r[0], -r[2], r[1]))
    assert {(row[0] - START) % HOUR for row in rows} == {0}
    by_type = [{"field": "eventType", "direction": "desc"}, {"field": "n"}]
    assert ask(by_type) == sorted(rows, key=lambda r: (-ord(r[1]), r[2], r[0]))
    assert ask(by_type, limit=2) == ask(by_type)[:2]
    few = planned.ask(
        planned.view(), limit=2, aggregations=[{"function": "COUNT", "groupBy": ["v"]}]
    )
    assert (few["more"], len(few["results"]), few["totalCount"]) == (True, 2, 24)


def test_most_frequent_values_come_in_the_same_order(planned: Planned) -> None:
    keys = ["eventType", "timestamp:1h"]

    def ask(order: list[dict[str, str]], limit: int = 1000) -> list[Any]:
        asked = [{"function": "TOPK", "field": "eventId", "groupBy": keys, "as": "ids"}]
        answer = planned.ask(planned.view(), aggregations=asked, orderBy=order, limit=limit)
        return [(r["timestamp:1h"], r["eventType"]) for r in answer["results"]]

    rows = ask([])
    assert len(rows) == 7
    assert rows == sorted(rows)
    by_type = [{"field": "eventType", "direction": "desc"}]
    assert ask(by_type) == sorted(rows, key=lambda r: (-ord(r[1]), r[0]))
    assert ask(by_type, limit=2) == ask(by_type)[:2]
    by_time = [{"field": "timestamp:1h", "direction": "desc"}]
    assert ask(by_time) == sorted(rows, key=lambda r: (-r[0], r[1]))
    # A count that is called as the list is can be ordered by.
    count = {"function": "COUNT", "groupBy": ["eventType"], "as": "ids"}
    top = {"function": "TOPK", "field": "eventId", "groupBy": ["eventType"], "as": "ids"}
    answer = planned.ask(planned.view(), aggregations=[count, top], orderBy=[{"field": "ids"}])
    assert [r["eventType"] for r in answer["results"]] == ["u", "t", "t", "u"]


def test_all_statements_of_a_query_have_one_deadline(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = planned.served.engine
    run, ends = engine.run_on_events, []

    def noted(*asked: Any, until: float, **more: Any) -> Any:
        ends.append(until)
        return run(*asked, until=until, **more)

    monkeypatch.setattr(engine, "run_on_events", noted)
    by = [{"function": "UNIQUE", "field": "page", "groupBy": [f"k{n}"]} for n in range(4)]
    planned.ask(planned.view(), aggregations=by)
    assert (len(ends), len(set(ends))) == (4, 1)
    monkeypatch.setattr(engine, "deadline", lambda: 0.0)
    with pytest.raises(QueryTimeoutError):
        planned.ask(planned.view(), aggregations=by, filters=[{"field": "z", "operator": "exists"}])


def test_sampled_events_weigh_what_they_stand_for(planned: Planned) -> None:
    def ask(*aggregations: dict[str, Any]) -> Any:
        found = planned.ask(planned.view(), aggregations=list(aggregations))
        assert found["totalCount"] == 24
        return found["results"]

    functions = [{"function": f, "field": "v"} for f in ("COUNT", "SUM", "AVG", "MIN", "UNIQUE")]
    [found] = ask({"function": "COUNT"}, *functions)
    assert (found["count"], found["count_v"]) == (26, 23)
    assert found["sum_v"] == pytest.approx(190 + 1 / 0.3)
    assert found["avg_v"] == pytest.approx((190 + 1 / 0.3) / (20 + 1 / 0.3))
    assert (found["min_v"], found["unique_v"]) == (0, 20)
    [top] = ask({"function": "TOPK", "field": "page", "k": 3})
    assert top == {
        "topk_page": [
            {"value": "/0", "count": 7},
            {"value": "/1", "count": 7},
            {"value": "/2", "count": 6},
        ]
    }
    per_type = ask({"function": "TOPK", "field": "page", "k": 1, "groupBy": ["eventType"]})
    assert per_type == [{"eventType": "t", "topk_page": [{"value": "/0", "count": 7}]}]


@pytest.mark.parametrize(
    ("operator", "value", "count"), [("starts with", "/s", 1), ("Ends  With", "1", 7)]
)
def test_how_texts_begin_and_end(planned: Planned, operator: str, value: str, count: int) -> None:
    only = {"field": "page", "operator": operator, "value": value}
    assert planned.ask(planned.view(), filters=[only])["totalCount"] == count


@given(
    moment=st.integers(-60_000_000_000, 253_402_300_799),
    span=st.sampled_from(("1s", "90s", "5m", "1h", "6h", "5h", "1d", "7d", "365d")),
)
@examples(max_examples=60)
def test_spans_begin_where_time_bucket_s_do(planned: Planned, moment: int, span: str) -> None:
    seconds = seconds_of(span)
    assert seconds is not None
    sql = (
        f"select {span_sql('t', seconds)}, epoch_ms(time_bucket(to_seconds({seconds}), t))"
        " from (select make_timestamptz($at) as t)"
    )
    with planned.served.engine.run_own(sql, {"at": moment * 1_000_000 + 123_456}) as cursor:
        [(ours, theirs)] = cursor.fetchall()
    assert ours == theirs


_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
_names = _texts.filter(lambda t: not set(t) & set(".[]\"'\\*") and not t.startswith("metadata"))


@given(
    first=st.tuples(_names, _texts, _names, _texts),
    second=st.tuples(_names, _texts, _names, _texts),
    function=st.sampled_from(("COUNT", "SUM", "AVG", "MAX", "P99", "UNIQUE", "TOPK")),
    operator=st.sampled_from(("=", "!=", "<", "contains", "starts with", "ends with", "in")),
)
@examples(max_examples=60)
def test_texts_only_ever_become_parameters(
    first: Any, second: Any, function: str, operator: str
) -> None:
    """The SQL is the same, whatever the names and values are."""

    def compiled(texts: tuple[str, str, str, str]) -> list[Any]:
        field, value, key, alias = (f"x{texts[0]}", texts[1], f"y{texts[2]}", texts[3])
        condition = {
            "field": field,
            "operator": operator,
            "value": [value] if operator == "in" else value,
        }
        tag = {"field": f"metadata.tags.{value}", "operator": "=", "value": value}
        aggregation = {"function": function, "field": field, "groupBy": [key], "as": alias}
        found: list[Any] = []
        for asked in ([], [aggregation]):
            query = Query.model_validate({"filters": [condition, tag], "aggregations": asked})
            made = Compiled(query)
            found += [(s.sql, s.parts, list(s.parameters)) for s in [*made.statements, made.count]]
        return found

    assert compiled(first) == compiled(second)
