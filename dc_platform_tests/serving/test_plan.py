"""What gold answers is what all events say: some late, deleted, sampled, or still in the tail."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from dc_platform.contracts.gold import EVENTS_HOURLY
from dc_platform.contracts.metrics import AggregationType, DefinedMetric, Definition
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.table import LakeTable
from dc_platform.serving.view import View
from dc_platform_tests.gold.lakes import FIRST, LAST, delete, land, merge, rows
from dc_platform_tests.gold.plain import count
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.lake import silver_row
from dc_platform_tests.serving.planned import Planned, build_without_dbt

START = NOW - NOW % HOUR
GOLD, SILVER, TAIL = "gold", "silver", "tail"
BY_HOUR = {"function": "COUNT", "groupBy": ["timestamp:1h", "eventType"]}


@pytest.fixture(scope="module", autouse=True)
def _counted() -> Iterator[None]:
    """Runs of gold count instead of calling dbt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dc_platform.gold.run.build", count)
        yield


@pytest.fixture
def with_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """And metrics are made, too, which takes a second for sixty hours."""
    monkeypatch.setattr("dc_platform.gold.run.build", build_without_dbt)
    monkeypatch.setattr("dc_platform.gold.build.run_dbt", lambda *_, **__: [])


def at(number: int, hours: float, **columns: Any) -> dict[str, Any]:
    return silver_row(number, event_time=(START + int(hours * HOUR)) * 1000, **columns)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two events in each of three hours, and gold of them."""
    made = Planned(tmp_path_factory.mktemp("built"))
    land(made.lake, [at(n, n / 2, event_type="ab"[n % 2]) for n in range(6)])
    made.gold()
    return Path(made.lake.uri)


@pytest.fixture
def planned(built: Path, tmp_path: Path) -> Planned:
    """A copy of it."""
    shutil.copytree(built, tmp_path / "served" / "lake")
    return Planned(tmp_path)


def span(first: float, last: float) -> dict[str, Any]:
    return {"from": START + int(first * HOUR), "to": START + int(last * HOUR)}


def test_whole_hours_come_from_gold_and_edges_from_silver(planned: Planned) -> None:
    view = planned.view()
    assert planned.agree(view, aggregations=[BY_HOUR]) == {GOLD}
    assert planned.agree(view, aggregations=[BY_HOUR], **span(0, 3)) == {GOLD}
    assert planned.agree(view, aggregations=[BY_HOUR], **span(0.5, 2.75)) == {GOLD, SILVER}
    assert planned.agree(view, aggregations=[BY_HOUR], **span(0.25, 0.75)) == {SILVER}
    whole = planned.ask(view, aggregations=[BY_HOUR], explain=True)
    [step] = whole["plan"]["statements"]
    assert (step["silver"]["filesRead"], step["silver"]["filesSkippedByStatistics"]) == (0, 1)
    assert step["gold"]["filesRead"] >= 1
    assert whole["totalCount"] == 6
    assert [row["timestamp:1h"] for row in whole["results"][::2]] == [
        START + hour * HOUR for hour in range(3)
    ]


def test_what_gold_alone_answers_by_source_is_light(planned: Planned) -> None:
    asked = {"aggregations": [{"function": "COUNT", "groupBy": ["sourceId"]}], **span(0, 3)}
    assert planned.agree(planned.view(), **asked) == {GOLD}
    assert planned.agree(planned.view(), **asked, filters=[_of("source-1")]) == {GOLD}
    assert planned.lights == 2
    # Of others the engine has the hours in memory, and rows that are in no memory it reads with all
    # threads.
    assert planned.agree(planned.view(), aggregations=[BY_HOUR], **span(0, 3)) == {GOLD}
    assert planned.agree(planned.view([at(20, 1.5)]), **asked) == {GOLD, TAIL}
    land(planned.lake, [at(10, 1.2)])
    assert planned.agree(planned.view(), **asked) == {GOLD, SILVER}
    assert planned.lights == 2


def _of(source_id: str) -> dict[str, Any]:
    return {"field": "sourceId", "operator": "=", "value": source_id}


def test_an_hour_that_a_commit_touched_comes_from_silver(planned: Planned) -> None:
    asked = {"aggregations": [BY_HOUR]}
    land(planned.lake, [at(10, 1.2)])
    answered = planned.ask(planned.view(), **asked, explain=True)
    [step] = answered["plan"]["statements"]
    assert step["gold"]["staleHours"] == 1
    assert step["silver"]["filesRead"] == 2
    assert planned.agree(planned.view(), **asked) == {GOLD, SILVER}
    # Two hours of one file, far apart: the hours between are not stale.
    land(planned.lake, [at(11, 0), at(12, 2000)])
    [step] = planned.ask(planned.view(), **asked, explain=True)["plan"]["statements"]
    assert step["gold"]["staleHours"] == 3
    delete(planned.lake, lambda row: int(row["kafka_offset"]) == 4)
    assert planned.agree(planned.view(), **asked) == {GOLD, SILVER}
    planned.gold()
    assert planned.agree(planned.view(), **asked) == {GOLD}


def test_compaction_makes_no_hour_stale(planned: Planned) -> None:
    merge(planned.lake)
    assert planned.agree(planned.view(), aggregations=[BY_HOUR]) == {GOLD}


def test_while_one_looks_for_newer_gold_the_others_take_what_there_was(planned: Planned) -> None:
    assert planned.agree(planned.view(), aggregations=[BY_HOUR]) == {GOLD}
    land(planned.lake, [at(20, 1.5)])
    coverage = planned.served.engine.coverage(EVENTS_HOURLY)
    with coverage._following:
        planned.gold()
        assert planned.agree(planned.view(), aggregations=[BY_HOUR]) == {GOLD, SILVER}
    assert planned.agree(planned.view(), aggregations=[BY_HOUR]) == {GOLD}


def test_the_tail_is_added_to_the_hours_of_gold(planned: Planned) -> None:
    view = planned.view([at(20, 1.5), at(21, 7)], [at(22, 0)], spill="tail-1")
    view = View(view.silver, view.border, view.chunks[:1])
    assert planned.agree(view, aggregations=[BY_HOUR]) == {GOLD, TAIL}
    assert planned.ask(view, aggregations=[BY_HOUR])["totalCount"] == 8


def test_who_answered_is_who_was_read(planned: Planned) -> None:
    view = planned.view([at(20, 1.5)])
    assert planned.agree(view, aggregations=[BY_HOUR], **span(0, 3)) == {GOLD, TAIL}
    assert planned.agree(view, aggregations=[BY_HOUR], **span(0, 1)) == {GOLD}
    assert planned.agree(view, **span(0, 0.5)) == {SILVER}
    assert planned.agree(view, **span(1.25, 1.75)) == {SILVER, TAIL}
    # None has anything of these days.
    assert planned.agree(view, **span(90, 100)) == set()


def test_days_of_which_gold_has_nothing(planned: Planned) -> None:
    by_source = {"function": "MAX", "field": "timestamp", "groupBy": ["sourceId", "timestamp:1d"]}
    for asked in ([BY_HOUR], [by_source], [{"function": "COUNT"}]):
        assert planned.agree(planned.view(), aggregations=asked, **span(90, 100)) == set()
        view = planned.view([at(20, 95)])
        assert planned.agree(view, aggregations=asked, **span(90, 100)) == {TAIL}


def test_a_view_that_is_older_than_gold_does_not_ask_it(planned: Planned) -> None:
    """What gold has of an hour may be in that view's tail."""
    land(planned.lake, [at(30, 1)])
    older = planned.view()
    land(planned.lake, [at(31, 1.5)])
    planned.gold()
    assert planned.agree(older, aggregations=[BY_HOUR]) == {SILVER}
    assert planned.agree(planned.view(), aggregations=[BY_HOUR]) == {GOLD}
    assert planned.agree(older, aggregations=[BY_HOUR]) == {SILVER}


def test_hours_that_were_built_by_hand_are_not_covered(planned: Planned) -> None:
    hour = START // HOUR
    land(planned.lake, [at(40, 1)])
    before = planned.view()
    land(planned.lake, [at(41, 1.5), at(42, 2)])
    planned.gold_by_hand(hour + 1, hour + 1)
    for view in (before, planned.view()):
        planned.agree(view, aggregations=[BY_HOUR])


def test_a_log_that_does_not_reach_back_leaves_all_to_silver(planned: Planned) -> None:
    assert planned.agree(planned.view(), aggregations=[BY_HOUR]) == {GOLD}
    land(planned.lake, [at(50, 1)])
    lost = LakeTable(planned.lake, SILVER_EVENTS).version
    land(planned.lake, [at(51, 2)])
    view = planned.view()
    planned.lake.remove(SILVER_EVENTS, f"_delta_log/{lost:020}.json")
    assert planned.agree(view, aggregations=[BY_HOUR]) == {SILVER}


def test_counts_of_sampled_events_add_up_exactly(planned: Planned) -> None:
    """Three hours of 1 / 0.3: rounded in each they would be 9, and they are 10."""
    land(planned.lake, [at(60 + n, 100 + n, sample_rate=0.3) for n in range(3)])
    planned.gold()
    view = planned.view()
    count = {"function": "COUNT"}
    assert planned.agree(view, aggregations=[count], **span(99, 110)) == {GOLD}
    answered = planned.ask(view, aggregations=[count], **span(99, 110))
    assert (answered["results"], answered["totalCount"]) == ([{"count": 10}], 3)


@pytest.mark.parametrize(
    ("aggregation", "why"),
    [
        ({"function": "SUM", "field": "value"}, "does not have SUM of value"),
        ({"function": "UNIQUE", "field": "userId"}, "does not have UNIQUE of userId"),
        ({"function": "COUNT", "groupBy": ["country"]}, "not grouped by country"),
        ({"function": "COUNT", "groupBy": ["timestamp:30m"]}, "not grouped by timestamp:30m"),
        ({"function": "TOPK", "field": "value"}, "TOPK is not in"),
    ],
)
def test_what_gold_does_not_have_says_why(
    planned: Planned, aggregation: dict[str, Any], why: str
) -> None:
    answered = planned.ask(planned.view(), aggregations=[aggregation], explain=True)
    step = answered["plan"]["statements"][0]
    assert why in step["why"]
    assert step["answeredBy"] == [SILVER]


_keys = st.lists(
    st.sampled_from(("timestamp:1h", "timestamp:6h", "timestamp:7d", "eventType", "sourceId")),
    max_size=3,
    unique=True,
)
_filters = st.lists(
    st.sampled_from(
        (
            {"field": "eventType", "operator": "in", "value": ["a", "é"]},
            {"field": "sourceId", "operator": "!=", "value": "s1"},
            {"field": "eventType", "operator": "starts with", "value": "a"},
            {"field": "eventType", "operator": "exists"},
        )
    ),
    max_size=2,
)
_edges = st.sampled_from((None, -31, -30.5, -2, 0, 0.25, 1, 24, 29.75, 31))
_queries = st.builds(
    lambda keys, more, filters, first, last: {
        "aggregations": [{"function": "COUNT", "groupBy": keys}]
        + [{"function": f, "field": "timestamp", "groupBy": keys} for f in more],
        "filters": filters,
        **({} if first is None else {"from": START + int(first * HOUR)}),
        **({} if last is None else {"to": START + int(last * HOUR)}),
    },
    *(_keys, st.lists(st.sampled_from(("MIN", "MAX")), max_size=1), _filters, _edges, _edges),
)
_steps = st.one_of(
    st.tuples(st.just("land"), st.integers(1, 30)),
    st.tuples(st.just("wild"), st.sampled_from((FIRST, LAST, -1, 0))),
    st.tuples(st.just("merge"), st.none()),
    st.tuples(st.just("delete"), st.integers(0, 3)),
    st.tuples(st.just("gold"), st.none()),
    st.tuples(st.just("backfill"), st.integers(-31, 25)),
)


def play(planned: Planned, chosen: random.Random, number: int, step: str, given_: Any) -> None:
    there = bool(LakeTable(planned.lake, SILVER_EVENTS).snapshot().rows)
    if step == "land":
        land(planned.lake, rows(chosen, number * 100, given_, wild=True))
    elif step == "wild":
        land(planned.lake, [silver_row(number * 100, event_time=given_ * 1000, sample_rate=0.7)])
    elif step == "merge" and there:
        merge(planned.lake)
    elif step == "delete" and there:
        delete(planned.lake, lambda row: int(row["kafka_offset"]) % 4 == given_)
    elif step == "gold":
        planned.gold()
    elif step == "backfill":
        planned.gold_by_hand(START // HOUR + given_, START // HOUR + given_ + 2)


_drawn = {
    "seed": st.integers(0, 2**16),
    "steps": st.lists(_steps, min_size=2, max_size=6),
    "queries": st.lists(_queries, min_size=2, max_size=3),
}
Factory = pytest.TempPathFactory


@given(**_drawn)
@examples(max_examples=4)
def test_whatever_happens_the_planned_answer_is_the_plain_one(
    tmp_path_factory: Factory, seed: int, steps: Any, queries: Any
) -> None:
    play_all(Planned(tmp_path_factory.mktemp("lake")), seed, steps, queries)


@pytest.mark.lakehouse
@given(**_drawn)
@examples(max_examples=150)
def test_whatever_happens_the_planned_answer_is_the_plain_one_at_length(
    tmp_path_factory: Factory, seed: int, steps: Any, queries: Any
) -> None:
    play_all(Planned(tmp_path_factory.mktemp("lake")), seed, steps, queries)


def play_all(planned: Planned, seed: int, steps: Any, queries: Any) -> None:
    chosen = random.Random(seed)
    land(planned.lake, rows(chosen, 0, 60, wild=True))
    planned.gold()
    tail = rows(chosen, 100_000, 10, wild=True)
    views = []
    for number, (step, given_) in enumerate(steps, 1):
        play(planned, chosen, number, step, given_)
        views.append(planned.view(tail[:5], tail[5:], spill=f"tail-{number}"))
        # The one before, too: queries of it may still run.
        for view in views[-2:]:
            for query in queries:
                planned.agree(view, "it's", **query)
                planned.agree(view, **query)


KINDS = {
    AggregationType.COUNT: None,
    AggregationType.SUM: "value",
    AggregationType.AVG: "value",
    AggregationType.MIN: "value",
    AggregationType.MAX: "value",
    AggregationType.P99: "value",
}
METRICS = [
    DefinedMetric(
        f"id-{kind}",
        "default",
        2,
        1,
        0,
        Definition(f"m_{kind.lower()}", kind, field, None, ("eventType",)),
    )
    for kind, field in KINDS.items()
]


@pytest.mark.usefixtures("with_metrics")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.lakehouse)])
def test_whatever_happens_planned_datapoints_are_the_plain_ones(tmp_path: Path, seed: int) -> None:
    planned, chosen = Planned(tmp_path, METRICS), random.Random(seed)
    land(planned.lake, rows(chosen, 0, 30, wild=True))
    planned.gold()
    tail = rows(chosen, 100_000, 10)
    for number, step in enumerate(("merge", "land", "gold", "delete"), 1):
        play(planned, chosen, number, step, chosen.randrange(3) + 1)
        view = planned.view(tail)
        for metric in METRICS:
            for seconds in (3600, 7 * 86_400):
                planned.metrics_agree(view, metric, seconds=seconds)
                planned.metrics_agree(
                    view,
                    metric,
                    seconds=seconds,
                    dimensions=("sourceId", "eventType"),
                    from_us=(START - 3 * HOUR // 2) * 1000,
                )


@pytest.mark.usefixtures("with_metrics")
def test_datapoints_of_whole_hours_come_from_gold(tmp_path: Path) -> None:
    planned = Planned(tmp_path, METRICS)
    land(planned.lake, [at(n, n / 2, payload=f'{{"value":{n}}}') for n in range(6)])
    planned.gold()
    view = planned.view([at(20, 1.5, payload='{"value":7}')])
    for metric in METRICS:
        adds_up = metric.definition.aggregation_type is not AggregationType.P99
        assert (GOLD in planned.metrics_agree(view, metric)) == adds_up
        assert GOLD not in planned.metrics_agree(view, metric, seconds=60)
        later = {"from_us": (START + 99 * HOUR) * 1000, "dimensions": ("sourceId", "eventType")}
        assert planned.metrics_agree(view, metric, **later) == set()
    # A definition that changed after gold was built.
    newer = DefinedMetric("id-COUNT", "default", 3, 2, 0, METRICS[0].definition)
    assert GOLD not in planned.metrics_agree(view, newer)


def test_another_gold_is_of_no_use(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that changed: its rows may mean something else."""
    monkeypatch.setattr("dc_platform.gold.pending.models_hash", lambda: "others")
    assert planned.agree(planned.view(), aggregations=[BY_HOUR]) == {SILVER}
