"""Fragments: what matches is marked, and nothing that was sent is markup."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dc_platform.search.analysis import Analyzer
from dc_platform.search.language import parse
from dc_platform.serving.highlights import highlights, words_in

ANALYZER = Analyzer()


def shown(query: str, payload: Any, event_type: str = "t", tags: Any = ()) -> dict[str, list[str]]:
    row = {"event_type": event_type, "payload": json.dumps(payload), "tags": tags}
    [found] = highlights([row], parse(query, ANALYZER.of_texts), ANALYZER)
    return {each["field"]: each["fragments"] for each in found}


def test_markup_of_an_event_is_text() -> None:
    found = shown("alert", {"m": "<script>alert('x')</script> & <em>"})
    assert found == {
        "payload.m": ["&lt;script&gt;<em>alert</em>(&#x27;x&#x27;)&lt;/script&gt; &amp; &lt;em&gt;"]
    }


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_fragment_without_its_marks_has_no_markup(before: str, after: str) -> None:
    payload = {"m": f"{before} needle {after}"}
    for fragments in shown("needle", payload).values():
        for fragment in fragments:
            assert "<em>needle</em>" in fragment.lower()
            assert not re.search(r"[<>\"']", re.sub(r"</?em>", "", fragment))


def test_only_words_that_match_are_marked() -> None:
    text = "The disk failed. A disk-failure, DISK; diskette. Disk failed"
    assert shown('"disk failed"', {"m": text}) == {
        "payload.m": [
            "The <em>disk</em> <em>failed</em>. A disk-failure, DISK; diskette. <em>Disk</em>"
            " <em>failed</em>"
        ]
    }
    assert shown("disket*", {"m": text})["payload.m"][0].count("<em>") == 1
    assert shown("failure -disk", {"m": "failure"}) == {"payload.m": ["<em>failure</em>"]}


def test_accents_and_scripts() -> None:
    assert shown("cafe", {"m": "Au CAFÉ"}) == {"payload.m": ["Au <em>CAFÉ</em>"]}
    assert shown("東京", {"m": "東京都"}) == {"payload.m": ["<em>東</em><em>京</em>都"]}
    assert [w.text for w in words_in("naïve, 1.50\tहिन्दी")] == ["naïve", "1", "50", "हिन्दी"]


def test_where_it_was_found_is_named() -> None:
    found = shown("eu", {"a": {"b": ["x", "eu-1"]}, "n": 7}, "eu_type", [("zone", "EU")])
    assert list(found) == ["eventType", "payload.a.b[1]", "metadata.tags.zone"]
    assert shown("7", {"a": {"b": 7}, "c": 7.0}) == {
        "payload.a.b": ["<em>7</em>"],
        "payload.c": ["<em>7</em>.0"],
    }


def test_a_long_text_is_shown_around_what_matches() -> None:
    [fragment] = shown("needle", {"m": f"{'hay ' * 100}needle{' hay' * 100}"})["payload.m"]
    assert fragment.startswith("…")
    assert fragment.endswith("…")
    assert len(fragment) < 150
    many = " ".join(["needle", "hay " * 50] * 20)
    assert len(shown("needle", {"m": many})["payload.m"]) == 3
    assert len(shown("needle", {f"m{n}": "needle" for n in range(20)})) == 5


def test_what_is_looked_at_and_shown_is_bounded() -> None:
    found = shown("a", {"m": "a " * 50_000, **{f"n{n}": "a" for n in range(1000)}})
    assert list(found) == ["payload.m"]
    assert [fragment.count("<em>") for fragment in found["payload.m"]] == [120, 120, 120]
    assert max(map(len, found["payload.m"])) < 2000
    # What a fragment leaves out begins the next one.
    assert found["payload.m"][0].startswith("<em>a</em> <em>a</em>")
    assert found["payload.m"][1].startswith("… <em>a</em>")
    assert shown("end", {"m": f"{'x ' * 4000}end", "n": f"{'x ' * 4000}end"}).keys() == {
        "payload.m"
    }


def test_phrases_that_begin_alike_are_marked_each() -> None:
    found = shown('"user 00"* OR "user 1" OR us* OR 1', {"m": "user 001, user 1, used, usher"})
    assert found["payload.m"][0].count("<em>") == 6
