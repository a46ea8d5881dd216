"""Words: an index finds what a look at the words finds, and what a person would say is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.search.analysis import COLUMNS, Analyzer, identity_of
from dc_platform.search.index import After, Hit, Moment, Reading, Wanted, Writing
from dc_platform.search.language import (
    AllOf,
    AnyOf,
    Not,
    Phrase,
    SyntaxMistakeError,
    Tree,
    parse,
    phrases,
)
from dc_platform.search.scan import condition
from dc_platform.search.state import State
from dc_platform_tests.helpers.events import TRAPS, some_uuid
from dc_platform_tests.helpers.lake import silver_row
from dc_platform_tests.helpers.search import matches

ANALYZER = Analyzer()
SCHEMA = pa.schema([SILVER_EVENTS.file_schema.field(name) for name in COLUMNS])


def searchable(rows: list[dict[str, Any]]) -> pa.Table:
    events = pa.Table.from_pylist([{n: r.get(n) for n in COLUMNS} for r in rows], schema=SCHEMA)
    return ANALYZER.searchable(events)


def words_of(payload: str, event_type: str = "t", tags: Any = None) -> list[list[str]]:
    row = silver_row(payload=payload, event_type=event_type, tags=tags)
    [text] = searchable([row])["words"].to_pylist()
    return [value.split(" ") for value in text.strip().replace("\x1f", "|").split(" | ")]


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"a": "Disk-failure: node_7"}, ["disk", "failure", "node", "7"]),
        ({"a": {"b": [{"c": "deep"}]}, "d": None, "e": True}, ["deep"]),
        ({"a": "Café GRÖSSE naïve Ελλάδα"}, ["cafe", "grosse", "naive", "ελλαδα"]),
        ({"a": "東京 ok カナ"}, ["東", "京", "ok", "カ", "ナ"]),
        ({"a": "हिन्दी"}, ["हनद"]),
        ({"a": f"x {'y' * 65} {'z' * 64}"}, ["x", "z" * 64]),
        ({"a": "one\u0000two\u001fthree"}, ["one", "two", "three"]),
        ({"a": "😀 \\ \" ' %"}, []),
    ],
)
def test_words(payload: Any, words: list[str]) -> None:
    found = [word for value in words_of(json.dumps(payload))[1:] for word in value]
    assert [word for word in found if word] == words


@pytest.mark.parametrize("between", ["", "é"])
def test_what_is_no_word_does_not_part_a_phrase(between: str) -> None:
    row = silver_row(payload=json.dumps({"a": f"alpha{between} {'y' * 65} {'z' * 65} beta"}))
    [text] = searchable([row])["words"].to_pylist()
    assert f" alpha{'e' if between else ''} beta " in text


def test_numbers_are_found_as_they_are_written() -> None:
    payload = '{"a":1.50,"b":-2e5,"c":12345678901234567890123,"d":0.10}'
    numbers = [["1", "50"], ["2e5"], ["12345678901234567890123"], ["0", "10"]]
    assert [[w for w in value if w] for value in words_of(payload)[1:]] == numbers


def test_what_cannot_be_decoded_is_searched_as_text_and_harms_no_other() -> None:
    payloads = [
        '{"a":"fine"}',
        "[" * 5000 + '"deep"' + "]" * 5000,
        '{"a":',
        "1],[2",
        '{"a":"good"}',
    ]
    rows = [silver_row(n, payload=payload) for n, payload in enumerate(payloads)]
    texts = searchable(rows)["words"].to_pylist()
    assert [" fine " in texts[0], " deep " in texts[1], " good " in texts[4]] == [True] * 3
    assert " 2 " in texts[3]
    assert len(texts) == 5


# --- index, scan and a person ---

VOCABULARY = st.sampled_from(
    ["disk", "Disk", "full", "fullness", "é", "42", "4", "-", "a.b", "東京", ""]
)
texts = st.one_of(
    st.lists(VOCABULARY, max_size=5).map(" ".join),
    st.sampled_from(sorted(TRAPS)),
    st.text(max_size=9),
)
payloads = st.recursive(
    st.one_of(texts, st.integers(-5, 50), st.none(), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)
events = st.fixed_dictionaries(
    {
        "event_type": st.sampled_from(["t", "disk_full"]),
        "payload": st.dictionaries(st.sampled_from("abc"), payloads, max_size=3).map(json.dumps),
        "event_time": st.integers(1_700_000_000_000_000, 1_700_000_000_000_003),
        "source_id": st.sampled_from(["s1", "s2"]),
        "tenant_id": st.sampled_from(["default", "default", "other"]),
    }
)
words = st.sampled_from(["disk", "full", "fullness", "e", "42", "4", "t", "zebra"])
leaves = st.one_of(
    st.lists(words, min_size=1, max_size=3).map(lambda found: Phrase(tuple(found))),
    st.lists(st.sampled_from(["disk", "fu", "4"]), min_size=1, max_size=2)
    .filter(lambda found: len(found[-1]) > 1)
    .map(lambda found: Phrase(tuple(found), prefix=True)),
)
trees: st.SearchStrategy[Tree] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AllOf(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: AnyOf(tuple(parts))),
    ),
    max_leaves=4,
)


def indexed(directory: Path, table: pa.Table) -> Moment:
    writing = Writing(directory, memory_mb=16, empty=State("table"))
    pieces = pa.array([n % 3 for n in range(len(table))], pa.int64())
    writing.add(ANALYZER.as_json(table.append_column("piece", pieces)))
    writing.commit(State("table"))
    writing.close()
    return Reading(directory).moment()


def pages(moment: Moment, wanted: Wanted, limit: int) -> list[Hit]:
    found: list[Hit] = []
    after = None
    while True:
        count, hits = moment.search(wanted, without=[(1, 1)], after=after, limit=limit)
        found += hits
        if len(hits) < limit:
            assert count == len(found)
            return found
        after = After(hits[-1].time, hits[-1].identity)


@settings(max_examples=15)
@given(st.lists(events, min_size=1, max_size=12), st.lists(trees, min_size=1, max_size=6))
def test_index_scan_and_a_look_give_the_same(
    tmp_path_factory: pytest.TempPathFactory, found: list[dict[str, Any]], wanted: list[Tree]
) -> None:
    rows = [silver_row(n, **columns) for n, columns in enumerate(found)]
    table = searchable(rows)
    moment = indexed(tmp_path_factory.mktemp("index") / "i", table)
    for tree in wanted:
        parameters: dict[str, Any] = {}
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.register("beside", table)
            scanned = connection.execute(
                f"select kafka_offset from beside where {condition(tree, parameters)}"
                " and tenant_id = 'default' and kafka_offset % 3 <> 1"
                " order by event_time desc, identity",
                parameters,
            ).fetchall()
        hits = pages(moment, Wanted(tree, "default"), limit=3)
        assert [(hit.kafka_offset,) for hit in hits] == scanned
        seen = {
            row["kafka_offset"]
            for row in rows
            if row["tenant_id"] == "default" and row["kafka_offset"] % 3 != 1 and matches(row, tree)
        }
        assert {hit.kafka_offset for hit in hits} == seen


# --- the language ---


def p(*found: str, prefix: bool = False) -> Phrase:
    return Phrase(found, prefix)


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ("disk", p("disk")),
        ("Disk full", AllOf((p("disk"), p("full")))),
        ('"disk full"', p("disk", "full")),
        ("user-42", p("user", "42")),
        ("a OR b c", AnyOf((p("a"), AllOf((p("b"), p("c")))))),
        ("a AND b OR c", AnyOf((AllOf((p("a"), p("b"))), p("c")))),
        ("(a OR b) -c", AllOf((AnyOf((p("a"), p("b"))), Not(p("c"))))),
        ("NOT NOT a", Not(Not(p("a")))),
        ('-"a b"', Not(p("a", "b"))),
        ("disk*", p("disk", prefix=True)),
        ('"disk fu"*', p("disk", "fu", prefix=True)),
        ("--verbose", p("verbose")),
        ("and or not", AllOf((p("and"), p("or"), p("not")))),
        ('"AND"', p("and")),
        ("a & b", AllOf((p("a"), p("b")))),
        ('a"b"c', AllOf((p("a"), p("b"), p("c")))),
    ],
)
def test_what_a_query_means(query: str, tree: Tree) -> None:
    assert parse(query, ANALYZER.of_texts) == tree


def test_phrases_of_not_are_no_reason_to_be_found() -> None:
    tree = parse("a (b OR c) -d NOT (e f)", ANALYZER.of_texts)
    assert [phrase.words for phrase in phrases(tree)] == [("a",), ("b",), ("c",)]


@given(st.text(max_size=80))
def test_any_text_is_a_query_or_a_mistake(text: str) -> None:
    try:
        tree = parse(text, ANALYZER.of_texts)
    except SyntaxMistakeError:
        return
    assert condition(tree, {})


def test_an_identity_is_the_same_in_sql_and_beside_it() -> None:
    names = [("s", "e"), ("", ""), ("é😀", "x" * 200), (some_uuid(1), some_uuid(2))]
    found = searchable([silver_row(source_id=s, event_id=e) for s, e in names])
    assert found["identity"].to_pylist() == [identity_of(*each) for each in names]
