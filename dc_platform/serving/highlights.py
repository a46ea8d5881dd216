"""Why an event was found: the places in it that match, as text for a page.

A fragment is HTML: what matches stands in `<em>`, everything else is escaped, whoever sent it. Words
are found in a value as the analysis finds them (`search/analysis.py`), and folded by it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from dc_platform.search.analysis import LONGEST_WORD, Analyzer, decoded
from dc_platform.search.language import Phrase, Tree, phrases

_AROUND = 60
_FRAGMENTS = 3
_FIELDS = 5
# From the first mark of a fragment to its last.
_LONGEST = 240
# Of all values of an event: a page has a hundred, and a word takes a microsecond.
_LOOKED_AT = 10_000
_ASCII_WORD = re.compile(r"[0-9A-Za-z]+")
# Scripts without spaces, by what the names of their characters begin with.
_ALONE = ("CJK UNIFIED", "HIRAGANA", "KATAKANA LETTER")


class Word(NamedTuple):
    """A word of a value and where it is."""

    start: int
    end: int
    text: str


def highlights(
    rows: Sequence[Mapping[str, Any]], tree: Tree, analyzer: Analyzer
) -> list[list[dict[str, Any]]]:
    """For each row (`event_type`, `payload`, `tags`) its fields that match, with their fragments."""
    wanted = list(phrases(tree))
    values = [[(path, text, words_in(text)) for path, text in _values(row)] for row in rows]
    strange = {
        word.text
        for found in values
        for _, _, words in found
        for word in words
        if not word.text.isascii()
    }
    folded = dict(zip(strange, analyzer.of_texts(list(strange)), strict=True)) if strange else {}
    return [list(_fields(found, wanted, folded)) for found in values]


def words_in(text: str) -> list[Word]:
    """The words of a value, as they are written."""
    if text.isascii():
        return [Word(m.start(), m.end(), m[0]) for m in _ASCII_WORD.finditer(text)]
    found: list[Word] = []
    start = -1
    for at, char in enumerate([*text, " "]):
        inside = unicodedata.category(char)[0] in "LNM"
        alone = inside and not char.isascii() and unicodedata.name(char, "").startswith(_ALONE)
        if start >= 0 and (alone or not inside):
            found.append(Word(start, at, text[start:at]))
            start = -1
        if alone:
            found.append(Word(at, at + 1, char))
        elif inside and start < 0:
            start = at
    return found


def _values(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    left = _LOOKED_AT
    for path, text in _all_values(row):
        if left <= 0:
            return
        yield path, text[:left]
        # Empty ones take time, too.
        left -= len(text) + 1


def _all_values(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "eventType", row["event_type"] or ""
    waiting: list[tuple[str, Any]] = [("payload", decoded(row["payload"] or "null"))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((f"{path}.{k}", v) for k, v in reversed(value.items()))
        elif isinstance(value, list):
            waiting.extend((f"{path}[{i}]", v) for i, v in reversed(list(enumerate(value))))
        elif isinstance(value, str | int) and not isinstance(value, bool):
            yield path, str(value)
    for name, value in row["tags"] or ():
        yield f"metadata.tags.{name}", value or ""


def _fields(
    values: Sequence[tuple[str, str, list[Word]]],
    wanted: Sequence[Phrase],
    folded: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    found = ((path, text, _marks(words, wanted, folded)) for path, text, words in values)
    matching = ((path, text, marks) for path, text, marks in found if marks)
    for path, text, marks in islice(matching, _FIELDS):
        yield {"field": path, "fragments": list(_fragments(text, marks))}


def _marks(
    words: Sequence[Word], wanted: Sequence[Phrase], folded: Mapping[str, str]
) -> list[Word]:
    """The words that match, in their order."""
    texts = [
        word.text.lower() if word.text.isascii() else folded[word.text].strip() for word in words
    ]
    # What is too long to be a word is not there for the analysis, either.
    there = [(t, w) for t, w in zip(texts, words, strict=True) if 0 < len(t) <= LONGEST_WORD]
    named: dict[str, list[Phrase]] = {}
    for phrase in wanted:
        named.setdefault("" if _begins(phrase) else phrase.words[0], []).append(phrase)
    marked: set[Word] = set()
    for at, (first, _) in enumerate(there):
        for phrase in (*named.get(first, ()), *named.get("", ())):
            part = there[at : at + len(phrase.words)]
            if _is(phrase, [text for text, _ in part]):
                marked.update(word for _, word in part)
    return sorted(marked)


def _begins(phrase: Phrase) -> bool:
    """Whether its first word is the beginning of a word."""
    return phrase.prefix and len(phrase.words) == 1


def _is(phrase: Phrase, texts: Sequence[str]) -> bool:
    if len(texts) < len(phrase.words):
        return False
    *first, last = phrase.words
    same = texts[-1].startswith(last) if phrase.prefix else texts[-1] == last
    return same and list(texts[:-1]) == first


def _fragments(text: str, marks: Sequence[Word]) -> Iterator[str]:
    """Pieces of the text around the marks."""
    pieces: list[list[Word]] = []
    for mark in marks:
        own = pieces[-1] if pieces else []
        if own and mark.start - own[-1].end <= 2 * _AROUND and mark.end - own[0].start <= _LONGEST:
            own.append(mark)
        elif len(pieces) <= _FRAGMENTS:
            pieces.append([mark])
        else:
            break
    for number, own in enumerate(pieces[:_FRAGMENTS]):
        # Never into a neighbour's marks.
        earliest = pieces[number - 1][-1].end if number else 0
        latest = pieces[number + 1][0].start if number + 1 < len(pieces) else len(text)
        start, end = max(earliest, own[0].start - _AROUND), min(latest, own[-1].end + _AROUND)
        parts = ["…"] if start else []
        at = start
        for mark in own:
            parts.append(html.escape(text[at : mark.start]))
            parts.append(f"<em>{html.escape(text[mark.start : mark.end])}</em>")
            at = mark.end
        parts.append(html.escape(text[at:end]))
        yield "".join([*parts, "…"] if end < len(text) else parts)
