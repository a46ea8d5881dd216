"""Search over the union: what a look at every event gives, each event once, wherever it is just now."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pytest
import tantivy

from dc_platform.broker.records import Record
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.search import index
from dc_platform.search.analysis import Analyzer
from dc_platform.search.build import Builder
from dc_platform.search.language import parse
from dc_platform.serving.query import QueryError
from dc_platform.serving.search import Search, SearchRequest
from dc_platform.serving.view import View
from dc_platform_tests.helpers.compaction import compact_all
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.lake import DAY, older, silver_row
from dc_platform_tests.helpers.landing import committer
from dc_platform_tests.helpers.records import block, gateway_line
from dc_platform_tests.helpers.search import QUERIES, TEXTS, matches
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door

ANALYZER = Analyzer()
SOURCES = ("0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a01", "0b9d7f1e-3a52-4c55-9c0c-6f2f5f0d9a02")
TYPES = ("t", "app_log")
Event = dict[str, Any]


def event(number: int, text: str | None = None) -> Event:
    """Of each two sources and types; four have the same time."""
    return {
        "eventId": some_uuid(number),
        "eventType": TYPES[number % 3 == 0],
        "timestamp": NOW + number // 4,
        "payload": {
            "message": TEXTS[number % len(TEXTS)] if text is None else text,
            "deep": [{"n": number}, None, True],
        },
        "metadata": {"tags": {"region": "eu-north"} if number % 5 == 0 else {}},
    }


def record(events: Sequence[Event], offset: int, tenant: str = "default") -> Record:
    """A block of the events, each of the source that its number says."""
    lines = [
        gateway_line(json.dumps(e).encode(), source_id=SOURCES[i % 2]) for i, e in enumerate(events)
    ]
    return block(lines, offset, tenant=tenant)


class World:
    """Events in all places: in the index, in silver beside it, in the tail's memory and on its disk."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.served = Served(directory, **settings)
        self.events = [event(number) for number in range(40)]
        groups = [self.events[start : start + 10] for start in range(0, 40, 10)]
        self.blocks = [record(group, n) for n, group in enumerate(groups)]
        view(self.served.lake, self.blocks[:1])
        self.built = Builder(self.served.settings).build()
        self.view = view(self.served.lake, [self.blocks[1]], [[self.blocks[2]]])
        spilled = view(self.served.lake, [], [[self.blocks[3]]], spill=self.served.tail_directory)
        chunks = (*self.view.chunks, *spilled.chunks)
        self.view = self.served.view = View(self.view.silver, self.view.border, chunks)

    def answer(self, tenant: str = "default", **body: Any) -> dict[str, Any]:
        return self.served.search.answer(
            self.view, SearchRequest.model_validate(body), tenant_id=tenant
        )

    def ids(self, **body: Any) -> list[str]:
        """All that is found, page by page."""
        found, cursor = [], None
        while True:
            answer = self.answer(**{"limit": 7, **body, "cursor": cursor})
            found += [result["eventId"] for result in answer["results"]]
            cursor = answer.get("nextCursor")
            if cursor is None:
                assert answer["totalCount"] == len(found) == len(set(found))
                return found

    def expected(self, query: str) -> list[Event]:
        tree = parse(query, ANALYZER.of_texts)
        return [e for e in self.events if matches(as_row(e), tree)]


def as_row(found: Event) -> dict[str, Any]:
    tags = list(found["metadata"]["tags"].items())
    return {
        "event_type": found["eventType"],
        "payload": json.dumps(found["payload"]),
        "tags": tags,
    }


def ids_of(events: Sequence[Event]) -> set[str]:
    return {e["eventId"] for e in events}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


# --- the same as a look at every event ---


@pytest.mark.parametrize("query", [*QUERIES, "eu-north", "app_log", "NOT region"])
def test_results_are_those_of_a_look_at_every_event(world: World, query: str) -> None:
    found = world.ids(query=query)
    assert set(found) == ids_of(world.expected(query))
    times = {e["eventId"]: e["timestamp"] for e in world.events}
    assert [times[i] for i in found] == sorted((times[i] for i in found), reverse=True)
    assert world.ids(query=query, limit=100) == found


@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        ({"from": NOW + 2}, lambda e, i: e["timestamp"] >= NOW + 2),
        ({"to": NOW + 2}, lambda e, i: e["timestamp"] < NOW + 2),
        ({"from": NOW + 1, "to": NOW + 8}, lambda e, i: NOW + 1 <= e["timestamp"] < NOW + 8),
        ({"from": NOW + 4, "to": NOW + 4}, lambda e, i: False),
        ({"eventType": "app_log"}, lambda e, i: e["eventType"] == "app_log"),
        ({"eventType": [*TYPES]}, lambda e, i: True),
        ({"sourceId": SOURCES[1]}, lambda e, i: i % 2 == 1),
        ({"sourceId": []}, lambda e, i: False),
        ({"sourceId": SOURCES[0], "eventType": "t", "to": NOW + 6},
         lambda e, i: i % 2 == 0 and e["eventType"] == "t" and e["timestamp"] < NOW + 6),
    ],
)  # fmt: skip
def test_filters_are_those_of_a_look_at_every_event(
    world: World, filters: Event, keep: Any
) -> None:
    for query in ("disk", "NOT zebra"):
        wanted = ids_of(world.expected(query))
        kept = {e["eventId"] for i, e in enumerate(world.events) if keep(e, i)}
        assert set(world.ids(query=query, **filters)) == wanted & kept


def test_an_event_is_shown_whole(world: World) -> None:
    [shown] = world.answer(query='"node 7" 35', limit=1)["results"]
    sent = world.events[35]
    assert msgspec.json.decode(msgspec.json.encode(shown["payload"])) == sent["payload"]
    assert {k: shown[k] for k in ("eventId", "eventType", "timestamp")} == {
        k: sent[k] for k in ("eventId", "eventType", "timestamp")
    }
    assert shown["metadata"]["tags"] == {"region": "eu-north"}
    assert shown["highlights"] == [
        {"field": "payload.message", "fragments": ["disk failure on <em>node</em>-<em>7</em>"]},
        {"field": "payload.deep[0].n", "fragments": ["<em>35</em>"]},
    ]


# --- each event once, whatever moves ---


def test_an_event_is_found_once_on_its_way_from_the_tail_into_a_merged_file(tmp_path: Path) -> None:
    world = World(tmp_path)
    lake = world.served.lake
    before = {query: world.ids(query=query) for query in QUERIES}

    def same() -> None:
        assert {query: world.ids(query=query) for query in QUERIES} == before

    world.view = view(lake, world.blocks[2:3], [[world.blocks[3]]])
    same()
    Builder(world.served.settings).build()
    same()
    stale = world.view
    world.view = view(lake, world.blocks[3:])
    same()
    writer = committer(lake)
    assert compact_all(lake, writer) > 0
    writer.close()
    world.view = view(lake, [])
    same()
    Builder(world.served.settings).build()
    world.served.search._index._next_look = 0.0
    same()
    # A query that began before all of that, with an index that is ahead of it.
    world.view = stale
    same()


def test_what_was_deleted_is_neither_counted_nor_shown_before_the_index_knows(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    table = LakeTable(world.served.lake, SILVER_EVENTS)
    [indexed] = list(world.served.search._index.beside(world.view.silver).coverage.files)
    table.put_in_place([indexed], [], metadata={"dcp.delete": "{}"})
    world.view = View(table.snapshot(), world.view.border, world.view.chunks)
    for query in QUERIES:
        assert set(world.ids(query=query)) == ids_of(world.expected(query)) - ids_of(
            world.events[:10]
        )
    assert Builder(world.served.settings).build().removed == 1


def test_past_its_bound_an_answer_says_that_it_is_not_complete(tmp_path: Path) -> None:
    world = World(tmp_path, search_fresh_rows=25)
    answer = world.answer(query="NOT zebra", limit=100)
    # What is newest counts: the tail, and the index itself.
    assert (answer["complete"], answer["notSearched"], answer["totalCount"]) == (False, 10, 30)
    Builder(world.served.settings).build()
    world.served.search._index._next_look = 0.0
    answer = world.answer(query="NOT zebra", limit=100)
    assert (answer["complete"], answer["totalCount"]) == (True, 40)


def test_without_an_index_everything_is_looked_through(tmp_path: Path) -> None:
    served = Served(tmp_path)
    seen = view(served.lake, [record([event(n) for n in range(10)], 0)])
    answer = served.search.answer(seen, SearchRequest(query="disk"), tenant_id="default")
    assert (answer["totalCount"], answer["complete"]) == (4, True)


def test_an_index_of_another_release_is_not_searched_and_then_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    before = world.ids(query="disk")
    with monkeypatch.context() as patch:
        patch.setattr(index, "_schema", lambda: tantivy.SchemaBuilder().build())
        world.served.search = Search(world.served.settings, world.served.lake, world.served.engine)
        assert world.ids(query="disk") == before
        assert world.served.search._index.beside(world.view.silver).moment is None
    Builder(world.served.settings).build()
    world.served.search._index._next_look = 0.0
    assert world.ids(query="disk") == before
    assert world.served.search._index.beside(world.view.silver).moment is not None


# --- whose events ---


def test_files_of_an_older_release_are_shown_beside_newer_ones(tmp_path: Path) -> None:
    served = Served(tmp_path)
    spec = older(SILVER_EVENTS)
    served.lake.ensure(spec)
    rows = [
        silver_row(
            n, event_id=some_uuid(n), payload='{"message": "disk"}', event_time=NOW * 1000 + n
        )
        for n in (101, 102)
    ]
    table = pa.Table.from_pylist(rows, schema=spec.file_schema)
    file = write_file(served.lake, spec, table, partition=DAY)
    LakeTable(served.lake, spec).commit([file], txns={}, exact=True)
    # Whoever opens it next adds the columns.
    lake = Lake(served.settings.lake)
    expected = ids_of([event(n) for n in (1, 2, 101, 102)])
    newer = view(lake, [record([event(1, "disk"), event(2, "disk")], 0)])
    search = Search(served.settings, lake, served.engine)
    for _ in range(2):
        answer = search.answer(newer, SearchRequest(query="disk"), tenant_id="default")
        assert {found["eventId"] for found in answer["results"]} == expected
        Builder(served.settings).build()


def test_a_tenant_finds_its_own_events_alone(tmp_path: Path) -> None:
    world = World(tmp_path)
    theirs = [record([event(100 + n, "disk secret")], 2 + n, tenant="other") for n in range(3)]
    view(world.served.lake, theirs[:1])
    Builder(world.served.settings).build()
    landed = view(world.served.lake, theirs[1:2], [theirs[2:]])
    world.view = landed
    for query in ("secret", "disk", "NOT zebra", "t OR app_log"):
        own = world.answer("other", query=query, limit=100)
        assert {r["eventId"] for r in own["results"]} == {some_uuid(100 + n) for n in range(3)}
        assert own["totalCount"] == 3
        default = world.answer(query=query, limit=100)
        assert not {r["eventId"] for r in default["results"]} & {
            some_uuid(100 + n) for n in range(3)
        }
    assert world.answer(query="secret")["totalCount"] == 0
    assert world.answer("nobody' or true --", query="disk")["totalCount"] == 0


# --- what comes from outside ---

HOSTILE = [
    ("", "at least 1 character"),
    ("   ", "no word"),
    ('"', "not closed"),
    ('"disk', "not closed"),
    ("(disk", "not closed"),
    ("disk)", "closes nothing"),
    ("()", "no word"),
    ("AND", "no word"),
    ("disk AND", "ends where"),
    ("disk OR OR disk", "not OR"),
    ("NOT", "no word"),
    ("--- ***", "no word"),
    ("a*", "too short"),
    ("*", "no word"),
    ("x" * 65, "too long"),
    ("x" * 1001, "1000 characters"),
    ("x" * 10_001, "10000 characters"),
    ("(" * 30 + "a" + ")" * 30, "nested"),
    ("NOT " * 30 + "a", "nested"),
    ("-(" * 30 + "a" + ")" * 30, "nested"),
    ("a " * 51, "50 words"),
    ("aa* " * 6, "5 prefixes"),
]


@pytest.fixture(scope="module")
def door(world: World) -> Any:
    with Door(world.served).open() as opened:
        yield opened


def ask(door: Door, **body: Any) -> httpx.Response:
    url = f"{door.url}/api/v1/search"
    return httpx.post(url, json=body, headers=door.headers, timeout=60)


@pytest.mark.parametrize(("query", "reason"), HOSTILE, ids=[repr(q[:12]) for q, _ in HOSTILE])
def test_a_query_that_makes_no_sense_is_refused_in_one_sentence(
    door: Door, query: str, reason: str
) -> None:
    answer = ask(door, query=query)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


@pytest.mark.parametrize(
    "query",
    [
        *("(a+)+$ x{9999}", "disk.* [^]]{64}", "'; drop table events; --", "\\ disk", "disk\x00"),
        *(
            "tenant_id:other",
            "[a TO z]",
            "/.*/ disk",
            "😀 disk",
            "a" * 64,
            "-" * 500 + "a",
            "d?s~2^9",
        ),
        *("disk \ud7ff", "$w0", '"' + "disk " * 50 + '"'),
    ],
)
def test_what_other_engines_take_for_an_operator_is_just_text(door: Door, query: str) -> None:
    answer = ask(door, query=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["complete"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"limit": 0}, "limit should be"),
        ({"limit": 101}, "limit should be"),
        ({"from": "yesterday"}, "ISO 8601"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"cursor": "WzEsMTgwMDAwMDAwMDAwMDAwMDAwMDAwMF0="}, "cursor"),
        ({"sourceId": ["s"] * 1001}, "at most 1000 items"),
        ({"sort": "score"}, "not a known field"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused(door: Door, body: Event, reason: str) -> None:
    answer = ask(door, query="disk", **body)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


def test_who_may_search(door: Door) -> None:
    url = f"{door.url}/api/v1/search"
    assert httpx.post(url, json={"query": "disk"}).status_code == 401
    assert ask(door, query="disk").json()["totalCount"] == len(door_world(door))


def door_world(door: Door) -> list[Event]:
    tree = parse("disk", ANALYZER.of_texts)
    return [e for e in (event(n) for n in range(40)) if matches(as_row(e), tree)]


def test_a_cursor_may_stand_anywhere(world: World) -> None:
    everything = world.answer(query="NOT zebra", limit=100)
    for at, left in (([0, 0], 0), ([2**61, 2**64 - 1], 40), ([NOW * 1000, 2**64 - 1], 0)):
        cursor = base64.urlsafe_b64encode(json.dumps(at).encode()).decode()
        answer = world.answer(query="NOT zebra", limit=100, cursor=cursor)
        assert len(answer["results"]) == left
        assert answer["totalCount"] == everything["totalCount"] == 40


def test_a_cursor_of_the_wrong_kind_is_no_error_of_ours(world: World) -> None:
    with pytest.raises(QueryError, match="begin without"):
        world.answer(query="disk", cursor="é")
