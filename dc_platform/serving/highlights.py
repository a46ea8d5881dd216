"""Why an event was found: the places in it that match, as text for a page.

A fragment is HTML: what matches stands in `<em>`, everything else is escaped, whoever sent it. Words
are found in a value as the analysis finds them (`search/analysis.py`), and folded by it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dc_platform.search.analysis import LONGEST_WORD, Analyzer, decoded
from dc_platform.search.language import Phrase, Tree, phrases

_AROUND = 60
_FRAGMENTS = 3
_FIELDS = 5
# Of a value, and of all values of an event: what a page shows is somewhere near the beginning.
_LOOKED_AT = 100_000
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
        left -= len(text)


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
    shown = 0
    for path, text, words in values:
        marks = _marks(words, wanted, folded)
        if marks and shown < _FIELDS:
            shown += 1
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
    marked: set[Word] = set()
    for phrase in wanted:
        size = len(phrase.words)
        for at in range(len(there) - size + 1):
            part = there[at : at + size]
            if _is(phrase, [text for text, _ in part]):
                marked.update(word for _, word in part)
    return sorted(marked)


def _is(phrase: Phrase, texts: Sequence[str]) -> bool:
    if texts[0] != phrase.words[0] and not phrase.prefix:
        return False
    *first, last = phrase.words
    same = texts[-1].startswith(last) if phrase.prefix else texts[-1] == last
    return same and list(texts[:-1]) == first


def _fragments(text: str, marks: Sequence[Word]) -> Iterator[str]:
    """Pieces of the text around the marks."""
    pieces: list[tuple[int, int, list[Word]]] = []
    for mark in marks:
        start, end = max(0, mark.start - _AROUND), min(len(text), mark.end + _AROUND)
        if pieces and start <= pieces[-1][1]:
            pieces[-1] = (pieces[-1][0], end, [*pieces[-1][2], mark])
        else:
            pieces.append((start, end, [mark]))
    for start, end, own in pieces[:_FRAGMENTS]:
        parts = ["…"] if start else []
        at = start
        for mark in own:
            parts.append(html.escape(text[at : mark.start]))
            parts.append(f"<em>{html.escape(text[mark.start : mark.end])}</em>")
            at = mark.end
        parts.append(html.escape(text[at:end]))
        yield "".join([*parts, "…"] if end < len(text) else parts)
