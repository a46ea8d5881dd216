"""What a person types, as a tree.

    checkout failed            both words, anywhere in the event
    "checkout failed"          the words next to each other, in one value
    error OR warning           either
    error -timeout             the one without the other; NOT timeout is the same
    (error OR warning) disk    groups
    time*                      words that begin so

AND, OR and NOT are operators in capitals only; AND binds closer than OR, and nothing between two words
is AND. All other characters separate words, in a query as in an event: `user-42` is the phrase
`user 42`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LONGEST = 1000
MOST_WORDS = 50
DEEPEST = 20
# A prefix is looked up among all words that there are.
SHORTEST_PREFIX = 2
MOST_PREFIXES = 5


class SyntaxMistakeError(ValueError):
    """The query cannot be understood; the message says what and where."""


@dataclass(frozen=True)
class Phrase:
    """Words next to each other; with `prefix` the last one may go on."""

    words: tuple[str, ...]
    prefix: bool = False


@dataclass(frozen=True)
class Not:
    """What does not match."""

    inner: Tree


@dataclass(frozen=True)
class AllOf:
    """What matches all of the parts."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class AnyOf:
    """What matches any of the parts."""

    parts: tuple[Tree, ...]


Tree = Phrase | Not | AllOf | AnyOf


class _Token(NamedTuple):
    """A kind of `( ) AND OR NOT text end`; the text, whether more may follow it, and where it is."""

    kind: str
    at: int
    text: str = ""
    prefix: bool = False


def parse(query: str, words_of: Callable[[Sequence[str]], list[str]]) -> Tree:
    """The tree of a query; `words_of` is the analysis of texts (`Analyzer.of_texts`).

    Raises SyntaxMistakeError.
    """
    if len(query) > LONGEST:
        raise SyntaxMistakeError(f"a query has at most {LONGEST} characters, this one {len(query)}")
    tokens = list(_tokens(query))
    texts = [token.text for token in tokens if token.kind == "text"]
    words = {t: tuple(found.split()) for t, found in zip(texts, words_of(texts), strict=True)}
    # What is no word in an event is none in a query: `disk & tape` are two words.
    tokens = [token for token in tokens if token.kind != "text" or _has_words(token, words)]
    if not any(token.kind == "text" for token in tokens):
        raise SyntaxMistakeError("there is no word to search for")
    parser = _Parser(tokens, words)
    tree = parser.either(0)
    parser.expect_end()
    return tree


def phrases(tree: Tree) -> Iterator[Phrase]:
    """The phrases that an event may have because of which it matches: not those of NOT."""
    if isinstance(tree, Phrase):
        yield tree
    elif isinstance(tree, AllOf | AnyOf):
        for part in tree.parts:
            yield from phrases(part)


def _tokens(query: str) -> Iterator[_Token]:
    at = 0
    while at < len(query):
        char = query[at]
        if char.isspace():
            at += 1
        elif char in "()":
            yield _Token(char, at)
            at += 1
        elif char == '"':
            end = query.find('"', at + 1)
            if end < 0:
                raise SyntaxMistakeError(f'the quote at character {at + 1} is not closed: add a "')
            prefix = query[end + 1 : end + 2] == "*"
            yield _Token("text", at, query[at + 1 : end], prefix)
            at = end + 1 + prefix
        elif char == "-" and (
            query[at + 1 : at + 2].isalnum() or query[at + 1 : at + 2] in ('"', "(")
        ):
            yield _Token("NOT", at)
            at += 1
        else:
            end = at
            while end < len(query) and not query[end].isspace() and query[end] not in '()"':
                end += 1
            yield _word(query[at:end], at)
            at = end
    yield _Token("end", at)


def _has_words(token: _Token, words: Mapping[str, tuple[str, ...]]) -> bool:
    if not words[token.text] and any(char.isalnum() for char in token.text):
        raise SyntaxMistakeError(
            f"{_short(token.text)} is too long to be a word: 64 letters and digits at most"
        )
    return bool(words[token.text])


def _word(text: str, at: int) -> _Token:
    if text in ("AND", "OR", "NOT"):
        return _Token(text, at)
    if text.endswith("*"):
        return _Token("text", at, text[:-1], True)
    return _Token("text", at, text)


class _Parser:
    """Recursive descent over the tokens; `words` has the words of each text."""

    def __init__(self, tokens: Sequence[_Token], words: Mapping[str, tuple[str, ...]]) -> None:
        self._tokens = tokens
        self._words = words
        self._next = 0
        self._count = 0
        self._prefixes = 0

    def either(self, depth: int) -> Tree:
        parts = [self._both(depth)]
        while self._peek.kind == "OR":
            self._next += 1
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def expect_end(self) -> None:
        if self._peek.kind != "end":
            raise SyntaxMistakeError(
                f"the ) at character {self._peek.at + 1} closes nothing: leave it out"
            )

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _both(self, depth: int) -> Tree:
        parts = [self._one(depth)]
        while self._peek.kind not in ("OR", ")", "end"):
            if self._peek.kind == "AND":
                self._next += 1
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _one(self, depth: int) -> Tree:
        token = self._peek
        self._next += token.kind != "end"
        if depth > DEEPEST:
            raise SyntaxMistakeError(f"( and NOT are nested more than {DEEPEST} deep")
        if token.kind == "text":
            return self._phrase(token)
        if token.kind == "NOT":
            return Not(self._one(depth + 1))
        if token.kind == "(":
            inner = self.either(depth + 1)
            if self._peek.kind != ")":
                raise SyntaxMistakeError(
                    f"the ( at character {token.at + 1} is not closed: add a )"
                )
            self._next += 1
            return inner
        if token.kind == "end":
            raise SyntaxMistakeError("the query ends where a word is expected")
        raise SyntaxMistakeError(
            f"a word is expected at character {token.at + 1}, not {token.kind}; write it in quotes"
            " to search for it"
        )

    def _phrase(self, token: _Token) -> Phrase:
        words = self._words[token.text]
        self._count += len(words)
        self._prefixes += token.prefix
        if self._count > MOST_WORDS:
            raise SyntaxMistakeError(f"a query has at most {MOST_WORDS} words")
        if token.prefix and len(words[-1]) < SHORTEST_PREFIX:
            raise SyntaxMistakeError(
                f"{_short(token.text)}* is too short: {SHORTEST_PREFIX} letters or digits at least"
            )
        if self._prefixes > MOST_PREFIXES:
            raise SyntaxMistakeError(f"a query has at most {MOST_PREFIXES} prefixes (word*)")
        return Phrase(words, token.prefix)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
