"""Events to words, in columns.

The words of an event are those of its type, of the string and number values of its payload, whatever
their depth, and of its tags' values. A word is a run of letters and digits; letters lose their case and
accents (of scripts that write vowels as marks the consonants stay), and of Chinese and Japanese each
character is a word of its own. A run of more than 64 characters is no word: it is encoded data.

They are kept as one text, ` page view ␟ user 42 ␟ `: one space before and after each word, and U+001F
between two values, so that no phrase runs from one value into the next. The index takes this text apart
at its spaces, a search without an index looks for ` page view ` in it: both find the same by making.

What a payload holds is no matter for JSON functions of SQL: theirs write numbers anew (`1.50` becomes
`1.5`), and copy what lies within at each level of nesting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import md5
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

# Part of every index: another number makes those that there are useless, and they are built anew.
ANALYSIS = 1
LONGEST_WORD = 64
# What of an event is looked at.
COLUMNS = (
    *("tenant_id", "source_id", "event_id", "event_type", "event_time", "payload", "tags"),
    *("kafka_partition", "kafka_offset", "kafka_index"),
)

_BETWEEN = "\x1f"
_TOGETHER = 256
_MACROS = r"""
create macro of_ascii(t) as lower(regexp_replace(t, '[^0-9A-Za-z\x1f]+', ' ', 'g'));
create macro of_any(t) as regexp_replace(
    regexp_replace(
        regexp_replace(strip_accents(lower(t)), '[^\p{L}\p{N}\p{M}\x1f]+', ' ', 'g'),
        '([\p{Han}\p{Hiragana}\p{Katakana}])', ' \1 ', 'g'),
    ' +', ' ', 'g');
create macro without_long(t) as
    case when regexp_matches(t, '[^ \x1f]{65}')
    then regexp_replace(regexp_replace(t, '[^ \x1f]{65,}', '', 'g'), ' +', ' ', 'g') else t end;
create macro spaced(t) as
    ' ' || replace(without_long(trim(case when regexp_full_match(t, '[\x00-\x7F]*') then of_ascii(t)
    else of_any(t) end, ' ')), chr(31), ' ' || chr(31) || ' ') || ' ';
create macro words_of(t) as spaced(replace(t, chr(0), ' '));
"""
# 64 bits of an event's identity, the same in every version of everything.
IDENTITY = "md5_number_lower(concat_ws(chr(31), source_id, event_id))"
_SEARCHABLE = f"""
    select words_of(
            concat_ws(chr(31), event_type, flat, array_to_string(map_values(tags), chr(31)))) as words,
        tenant_id, source_id, event_type, epoch_us(event_time) as event_time,
        {IDENTITY} as identity, kafka_partition, kafka_offset, kafka_index
    from events
"""


class Analyzer:
    """Thread-safe: each call has a cursor of its own."""

    def __init__(self, *, threads: int = 1) -> None:
        self._instance = duckdb.connect(config={"threads": threads, "memory_limit": "256MB"})
        self._instance.execute(_MACROS)

    def searchable(self, events: pa.Table) -> pa.Table:
        """Of events with COLUMNS, in their order: `words`, what searches are filtered by (`event_time`
        in epoch microseconds), `identity` and the address.
        """
        flat = pa.array(flattened(events["payload"].to_pylist()), pa.string())
        with self._instance.cursor() as cursor:
            cursor.register("events", events.drop_columns("payload").append_column("flat", flat))
            return cursor.execute(_SEARCHABLE).to_arrow_table()

    def as_json(self, table: pa.Table) -> list[str]:
        """The rows of a table as JSON objects."""
        with self._instance.cursor() as cursor:
            cursor.register("t", table)
            rows = cursor.execute("select to_json(t)::varchar from t").to_arrow_table()
        texts: list[str] = rows.column(0).to_pylist()
        return texts

    def of_texts(self, texts: Sequence[str]) -> list[str]:
        """The words of texts that are no events: of a query, or of what is to be marked."""
        column = pa.table({"t": pa.array([t.replace(_BETWEEN, " ") for t in texts], pa.string())})
        with self._instance.cursor() as cursor:
            cursor.register("texts", column)
            rows = cursor.execute("select words_of(t) from texts").fetchall()
        return [row[0] for row in rows]


def identity_of(source_id: str, event_id: str) -> int:
    """`identity` of an event."""
    text = f"{source_id}{_BETWEEN}{event_id}".encode()
    return int.from_bytes(md5(text, usedforsecurity=False).digest()[8:], "little")


def flattened(payloads: Sequence[str | None]) -> list[str]:
    """The string and number values of payloads, numbers as they are written."""
    found: list[str] = []
    for start in range(0, len(payloads), _TOGETHER):
        some = [payload or "null" for payload in payloads[start : start + _TOGETHER]]
        try:
            values = _decode(f"[{','.join(some)}]")
            if len(values) != len(some):
                raise ValueError
        except (ValueError, RecursionError):
            # One that cannot be decoded beside others is taken alone, and as mere text if need be.
            values = [_alone(payload) for payload in some]
        found += [_BETWEEN.join(texts_in(value)) for value in values]
    return found


def texts_in(value: Any) -> list[str]:
    """The strings and numbers within a decoded value, in their order."""
    found: list[str] = []
    waiting: list[Any] = [value]
    while waiting:
        part = waiting.pop()
        kind = type(part)
        if kind is str:
            found.append(part)
        elif kind is dict:
            waiting.extend(reversed(part.values()))
        elif kind is list:
            waiting.extend(reversed(part))
        elif kind is int:
            found.append(str(part))
    return found


def decoded(payload: str) -> Any:
    """A payload with numbers as they are written; the text itself where that cannot be done."""
    return _alone(payload)


def _alone(payload: str) -> Any:
    try:
        return _decode(payload)
    except (ValueError, RecursionError):
        return payload


# Fractions as they are written: 1.50 is found as 1.50.
_decode = msgspec.json.Decoder(float_hook=str).decode


def joined(words: Iterable[str]) -> str:
    """Words as they stand in a text of words."""
    return f" {' '.join(words)} "
