"""The index: tantivy behind a few calls.

A document has the words of an event, what searches are filtered by, and where the event lies (its
address, the number of its piece); nothing is stored but that. The event itself is read from silver.
`identity` is 64 bits of the event's identity: with the time they are the order of the results.

One process writes at a time (tantivy's lock, gone with the process). Who searches has a moment of the
index, and the files of that moment for as long as needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import tantivy
from tantivy import FieldType, Occur, Order

from dc_platform.errors import CommitConflictError, RetriableError, StoreUnavailableError
from dc_platform.search.language import AllOf, Not, Phrase, SyntaxMistakeError, Tree
from dc_platform.search.state import Range, State

# Numbers of a document, by which an event is found again.
_PLACE = ("kafka_partition", "kafka_offset", "kafka_index", "piece")
_TEXTS = ("tenant_id", "event_type", "kind")
# The document that is the index's state.
_STATE = "state"
_HIGHEST = 2**64 - 1
# The order of the results.
_FIRST = {
    "sort": [{"event_time": "desc"}, {"identity": "asc"}],
    "docvalue_fields": ["identity", "source_id"],
}


class DamagedIndexError(RetriableError):
    """The index cannot be read; it is a copy, and the next build makes it anew."""


class Hit(NamedTuple):
    """An event that matches; `time` in epoch microseconds. `piece` tells which file it lies in,
    `source_id` where in a file whose rows are in order.
    """

    time: int
    identity: int
    kafka_partition: int
    kafka_offset: int
    kafka_index: int
    piece: int
    source_id: str


class After(NamedTuple):
    """The last event that was shown: the next ones have an earlier time, or the same and a higher
    identity.
    """

    time: int
    identity: int


class Wanted(NamedTuple):
    """What is searched: the events of a tenant that match the tree and, where given, are of one of the
    sources, of one of the types, and within [from_us, to_us).
    """

    tree: Tree
    tenant_id: str
    sources: Sequence[str] | None = None
    types: Sequence[str] | None = None
    from_us: int | None = None
    to_us: int | None = None


class _Found(NamedTuple):
    time: int
    identity: int
    address: tantivy.DocAddress


class Moment:
    """The index as it was at one commit. Thread-safe."""

    def __init__(self, index: tantivy.Index) -> None:
        self._schema = index.schema
        self._searcher = index.searcher()
        found = self._searcher.search(self._is("kind", _STATE), limit=2).hits
        if len(found) != 1:
            raise DamagedIndexError(f"the index has {len(found)} states")
        stored = self._searcher.doc(found[0][1]).get_first(_STATE)
        self.state = State.decoded(bytes(stored or b""))

    @property
    def documents(self) -> int:
        """Events in the index."""
        return int(self._searcher.num_docs) - 1

    @property
    def segments(self) -> int:
        """Parts that the index consists of."""
        return int(self._searcher.num_segments)

    def rows_of(self, pieces: Iterable[Range]) -> int:
        """Events of pieces."""
        found = (self._count(self._between("piece", first, last)) for first, last in pieces)
        return sum(found)

    def search(
        self, wanted: Wanted, *, without: Iterable[Range], after: After | None, limit: int
    ) -> tuple[int, list[Hit]]:
        """How many events match, and the first `limit` of them after `after`; newest first.

        `without` are pieces whose rows silver no longer has.
        """
        matching = self._matching(wanted, without)
        try:
            if after is None:
                return self._newest(matching, limit)
            hits = self._tied(matching, after, limit)
            if len(hits) < limit:
                hits += self._newest(matching, limit - len(hits), to=after.time - 1)[1]
            return self._count(matching), hits
        except ValueError as error:
            if "max expansions" in str(error):
                raise SyntaxMistakeError(
                    "too many words begin like the last one of a phrase: write more of it"
                ) from error
            raise DamagedIndexError(f"the index cannot be searched: {error}") from error

    def _newest(
        self, query: tantivy.Query, limit: int, *, to: int | None = None
    ) -> tuple[int, list[Hit]]:
        """How many events match, and the first ones; with `to` of those until then."""
        within = query if to is None else self._both(query, self._between("event_time", None, to))
        # tantivy's own stubs forget `count`.
        result: Any = self._searcher.search(within, limit=limit, order_by_field="event_time")
        if not result.hits:
            return result.count, []
        oldest = result.hits[-1][0]
        sources = self._sources(self._both(query, self._between("event_time", oldest, to)), limit)
        found = self._in_order(result.hits)
        if [each.identity for each in found] != [identity for identity, _ in sources]:
            # Of those of the oldest time others come first.
            tied = self._both(query, self._between("event_time", oldest, oldest))
            others = self._searcher.search(
                tied, limit=limit, order_by_field="identity", order=Order.Asc, count=False
            )
            newer = [each for each in found if each.time > oldest]
            found = [*newer, *(_Found(oldest, *each) for each in others.hits)][:limit]
        addresses = [each.address for each in found]
        places = (self._searcher.fast_field_values(name, addresses) for name in _PLACE)
        hits = zip(found, *places, (source for _, source in sources), strict=True)
        return result.count, [Hit(each.time, each.identity, *rest) for each, *rest in hits]

    def _sources(self, query: tantivy.Query, limit: int) -> list[tuple[int, str]]:
        """Identity and source of the first events, in the order of the results. What else a hit has
        costs five times as much here (10 ms of 10,000,000 events) as when it is asked for by address.
        """
        top = {"top_hits": {**_FIRST, "size": limit}}
        hits = self._searcher.aggregate(query, {"first": top})["first"]["hits"]
        fields = (hit["docvalue_fields"] for hit in hits)
        return [(each["identity"][0], each["source_id"][0]) for each in fields]

    def _in_order(self, hits: Sequence[tuple[int, tantivy.DocAddress]]) -> list[_Found]:
        addresses = [address for _, address in hits]
        identities: list[Any] = self._searcher.fast_field_values("identity", addresses)
        found = zip(hits, identities, strict=True)
        return sorted(
            (_Found(time, identity, address) for (time, address), identity in found),
            key=lambda each: (-each.time, each.identity),
        )

    def _tied(self, query: tantivy.Query, after: After, limit: int) -> list[Hit]:
        """The first of those that have the time of an event and come after it."""
        if after.identity == _HIGHEST:
            return []
        # Two by two: both ranges at once tantivy would look for in all events, in 20 ms.
        tied = self._both(query, self._between("event_time", after.time, after.time))
        above = self._between("identity", after.identity + 1, None)
        return self._newest(self._both(tied, above), limit)[1]

    def _count(self, query: tantivy.Query) -> int:
        result: Any = self._searcher.search(query, limit=1, order_by_field="event_time")
        return int(result.count)

    # --- queries ---

    def _matching(self, wanted: Wanted, without: Iterable[Range]) -> tantivy.Query:
        must = [self._is("tenant_id", wanted.tenant_id), self._tree(wanted.tree)]
        if wanted.sources is not None:
            must.append(self._any_of("source_id", wanted.sources))
        if wanted.types is not None:
            must.append(self._any_of("event_type", wanted.types))
        if wanted.from_us is not None or wanted.to_us is not None:
            to = None if wanted.to_us is None else wanted.to_us - 1
            must.append(self._between("event_time", wanted.from_us, to))
        clauses = [(Occur.Must, query) for query in must]
        clauses += [(Occur.MustNot, self._between("piece", *pieces)) for pieces in without]
        return tantivy.Query.boolean_query(clauses)

    def _tree(self, tree: Tree) -> tantivy.Query:
        if isinstance(tree, Phrase):
            return self._phrase(tree)
        if isinstance(tree, Not):
            everything = (Occur.Must, tantivy.Query.all_query())
            inner = (Occur.MustNot, self._tree(tree.inner))
            return tantivy.Query.boolean_query([everything, inner])
        occur = Occur.Must if isinstance(tree, AllOf) else Occur.Should
        return tantivy.Query.boolean_query([(occur, self._tree(part)) for part in tree.parts])

    def _phrase(self, phrase: Phrase) -> tantivy.Query:
        """Words are letters, digits and marks, so none of them means anything in a pattern."""
        *first, last = phrase.words
        if phrase.prefix and first:
            return tantivy.Query.regex_phrase_query(self._schema, "words", [*first, f"{last}.*"])
        if phrase.prefix:
            return tantivy.Query.regex_query(self._schema, "words", f"{last}.*")
        if first:
            return tantivy.Query.phrase_query(self._schema, "words", list(phrase.words))
        return tantivy.Query.term_query(self._schema, "words", last)

    def _is(self, field: str, value: str) -> tantivy.Query:
        return tantivy.Query.term_query(self._schema, field, value, "basic")

    def _any_of(self, field: str, values: Sequence[str]) -> tantivy.Query:
        return tantivy.Query.term_set_query(self._schema, field, list(values))

    def _between(self, field: str, first: int | None, last: int | None) -> tantivy.Query:
        kind = FieldType.Integer if field == "event_time" else FieldType.Unsigned
        return tantivy.Query.range_query(self._schema, field, kind, first, last)

    @staticmethod
    def _both(one: tantivy.Query, other: tantivy.Query) -> tantivy.Query:
        return tantivy.Query.boolean_query([(Occur.Must, one), (Occur.Must, other)])


class Reading:
    """An index to search, beside whoever writes it. Thread-safe as far as `moment` goes."""

    def __init__(self, directory: Path) -> None:
        try:
            self._index = _prepared(tantivy.Index.open(str(directory)))
            self._index.config_reader("manual")
        except ValueError as error:
            raise DamagedIndexError(
                f"the index in {directory} cannot be opened: {error}"
            ) from error
        if self._index.schema != _schema():
            raise DamagedIndexError(
                f"the index in {directory} is of another release: the next build makes it anew,"
                " `dcp search rebuild` does so now"
            )

    def moment(self) -> Moment:
        """The index as it is now."""
        try:
            self._index.reload()
            return Moment(self._index)
        except (ValueError, msgspec.MsgspecError) as error:
            raise DamagedIndexError(f"the index cannot be read: {error}") from error


class Writing:
    """An index to write to, made when it is not there. What is not committed is gone with it."""

    def __init__(self, directory: Path, *, memory_mb: int, empty: State) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        is_new = not tantivy.Index.exists(str(directory))
        try:
            self._index = _prepared(tantivy.Index(_schema(), str(directory)))
            # One thread: a second one makes twice as many segments, and landing needs its core.
            self._writer = self._index.writer(memory_mb * 2**20, 1)
        except ValueError as error:
            if "LockBusy" in str(error):
                raise CommitConflictError("another process writes the index; try again") from error
            raise DamagedIndexError(
                f"the index in {directory} cannot be opened: {error}"
            ) from error
        if is_new:
            self.commit(empty)

    def add(self, documents: Iterable[str]) -> None:
        """Add documents, JSON objects with the fields of the schema."""
        add = self._writer.add_json
        with _storing():
            for document in documents:
                add(document)

    def remove(self, pieces: Iterable[Range]) -> None:
        """Remove the documents of pieces."""
        for first, last in pieces:
            self._writer.delete_documents_by_query(
                tantivy.Query.range_query(
                    self._index.schema, "piece", FieldType.Unsigned, first, last
                )
            )

    def commit(self, state: State) -> None:
        """Make all of that, and what the index says of itself, so."""
        document = tantivy.Document()
        document.add_text("kind", _STATE)
        document.add_bytes(_STATE, state.encoded())
        with _storing():
            self._writer.delete_documents_by_term("kind", _STATE)
            self._writer.add_document(document)
            self._writer.commit()

    def moment(self) -> Moment:
        """The index as it was committed last."""
        self._index.reload()
        return Moment(self._index)

    def close(self) -> None:
        """Let segments that are being merged become one, and give up the lock."""
        with _storing():
            self._writer.wait_merging_threads()


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise StoreUnavailableError(f"the index cannot be written: {error}") from error


def _schema() -> tantivy.Schema:
    made = tantivy.SchemaBuilder()
    made.add_text_field("words", tokenizer_name="words")
    for name in _TEXTS:
        made.add_text_field(name, tokenizer_name="raw", index_option="basic")
    made.add_text_field("source_id", tokenizer_name="raw", index_option="basic", fast=True)
    made.add_bytes_field(_STATE, stored=True)
    made.add_integer_field("event_time", fast=True)
    for name in ("identity", *_PLACE):
        made.add_unsigned_field(name, fast=True)
    return made.build()


def _prepared(index: tantivy.Index) -> tantivy.Index:
    # What stands between two values takes a position and is no word.
    words = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    index.register_tokenizer(
        "words", words.filter(tantivy.Filter.custom_stopword(["\x1f"])).build()
    )
    return index
