"""Strategies for events as clients may send them: valid, odd, and hostile JSON, as bytes.

JSON is written here by hand, not by a library, because the bytes are the point: white space, escapes,
number forms and duplicate keys that no encoder would write.
"""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import strategies as st

HOUR = 3_600_000
NOW = 1_700_000_000_000

# Text that breaks a reader which looks for its marks in the bytes.
TRAPS = (
    ',"payload":{',
    ',"payload":{}}',
    '"},"payload":{"a":1}}',
    "\\",
    '\\"',
    "\n",
    "\r\n",
    "\x00",
    "\x1f\x7f\u0085\u2028",
    "payload",
    "{}[]",
    "é\U0001f600\ufeff",
    "%s'; drop table events; --",
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(TRAPS),
    st.builds("".join, st.lists(st.sampled_from(TRAPS), max_size=3)),
)
spaces = st.sampled_from(("", "", "", " ", "\n", "\r\n", "\t", " \n "))


@st.composite
def json_strings(draw: st.DrawFn, text: st.SearchStrategy[str] = texts) -> str:
    """A JSON string literal; each character raw where that is allowed, or escaped."""
    return quote(draw(text), escape=draw(st.sampled_from(("least", "most", "short"))))


def quote(value: str, *, escape: str = "least") -> str:
    """A JSON string literal of `value`, with as few or as many escapes as there can be."""
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", "/": "\\/"}
    parts = ['"']
    for character in value:
        if character in '"\\':
            parts.append("\\" + character)
        elif escape == "short" and character in short:
            parts.append(short[character])
        elif escape == "most" or character < " ":
            units = character.encode("utf-16-be")
            parts += [f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2)]
        else:
            parts.append(character)
    return "".join([*parts, '"'])


numbers = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.sampled_from(("0", "-0", "1.10", "1e5", "1E-7", "-0.0", "1e308", "9" * 60, "0.1e+2")),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
# Keys that a reader could take for the envelope's.
keys = st.one_of(
    texts,
    st.sampled_from(("payload", "metadata", "eventId", "EVENTID", "tags", "receivedAt", "a", "b")),
)


@st.composite
def json_objects(
    draw: st.DrawFn, values: st.SearchStrategy[str], *, names: Any = keys, max_size: int = 4
) -> str:
    """An object, with white space anywhere and maybe with a key twice."""
    pairs = draw(st.lists(st.tuples(json_strings(names), values), max_size=max_size))
    members = [
        f"{draw(spaces)}{name}{draw(spaces)}:{draw(spaces)}{value}{draw(spaces)}"
        for name, value in pairs
    ]
    return "{" + (",".join(members) or draw(spaces)) + "}"


json_scalars = st.one_of(json_strings(), numbers, st.sampled_from(("true", "false", "null")))
json_values = st.recursive(
    json_scalars,
    lambda inner: st.one_of(
        json_objects(inner),
        st.lists(inner, max_size=3).map(lambda items: "[" + " ,\n".join(items) + "]"),
    ),
    max_leaves=8,
)
payloads = json_objects(json_values)

uuids = st.uuids().map(str)
client_ids = st.one_of(
    uuids,
    uuids.map(str.upper),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128),
    st.sampled_from(TRAPS),
).filter(lambda text: 1 <= len(text) <= 128)
timestamps = st.one_of(
    st.integers(-62_135_596_800_000, NOW + HOUR),
    st.sampled_from((0, -1, 1, HOUR - 1, HOUR, -HOUR, -HOUR - 1, NOW, NOW + HOUR)),
)
tags = json_objects(json_strings(), max_size=3)
versions = st.one_of(
    st.just(""), st.text(st.characters(exclude_categories=["Cs"]), max_size=64), st.just("null")
)


@st.composite
def events(draw: st.DrawFn, *, source_id: str | None = None, unknown: bool = True) -> bytes:
    """An event that must be accepted, its members in any order, maybe with unknown ones."""
    event_types = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
    members = [
        ('"eventType"', draw(json_strings(event_types))),
        ('"payload"', draw(payloads)),
    ]
    if draw(st.booleans()):
        members.append(('"eventId"', draw(st.one_of(json_strings(client_ids), st.just("null")))))
    if draw(st.booleans()):
        members.append(('"timestamp"', draw(st.one_of(timestamps.map(str), st.just("null")))))
    if draw(st.booleans()):
        members.append(('"metadata"', draw(_metadata(unknown=unknown))))
    if source_id is not None:
        members.append(('"sourceId"', quote(source_id)))
    if unknown and draw(st.booleans()):
        names = keys.filter(lambda name: name not in _ENVELOPE)
        extra = draw(st.lists(st.tuples(json_strings(names), json_values), max_size=3))
        members += extra
    members = draw(st.permutations(members))
    separator = "," + draw(spaces)
    return ("{" + separator.join(f"{k}{draw(spaces)}:{v}" for k, v in members) + "}").encode()


_ENVELOPE = frozenset({"eventId", "sourceId", "timestamp", "eventType", "payload", "metadata"})


@st.composite
def _metadata(draw: st.DrawFn, *, unknown: bool) -> str:
    if draw(st.integers(0, 9)) == 0:
        return "null"
    members = []
    if draw(st.booleans()):
        members.append(('"version"', draw(json_strings(versions))))
    if draw(st.booleans()):
        members.append(('"tags"', draw(tags)))
    if unknown and draw(st.booleans()):
        names = keys.filter(lambda name: name not in ("version", "tags"))
        members += draw(st.lists(st.tuples(json_strings(names), json_values), max_size=2))
    return "{" + ",".join(f"{k}:{v}" for k, v in draw(st.permutations(members))) + "}"


def some_uuid(number: int) -> str:
    """A UUID that depends on `number` alone."""
    return str(uuid.UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128)))
