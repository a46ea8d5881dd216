"""Prefixes of canonical lines, read by position: what the gateway writes hardly varies.

A gateway's line (`contracts.lines`) is `{"eventId":"…","sourceId":…,"timestamp":…` and a rest, from
the event type to the metadata, that many lines have in common. Ids and times stand at known places and
are read as columns of bytes; of the rest each different text is read once. That takes 0.4 µs a line,
DuckDB's JSON reader 1.3. Lines of any other form, also valid ones (no timestamp, unknown members, an
id of the client's), are not `simple`: the JSON reader has to look at them.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dc_platform.contracts.envelope import (
    MAX_EVENT_TYPE_LENGTH,
    MAX_ID_LENGTH,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
)
from dc_platform.contracts.tables import FLAGS, TAGS

Mask = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

_START = np.frombuffer(b'{"eventId":"', np.uint8)
_SOURCE = np.frombuffer(b'","sourceId":"', np.uint8)
_TIME = b'","timestamp":'
_UUID = slice(len(_START), len(_START) + 36)
# Where the source's id begins.
_HEAD = len(_START) + 36 + len(_SOURCE)
# From September 2001 to November 2286 a time in milliseconds has 13 digits.
_DIGITS = 13
_POWERS = 10 ** np.arange(_DIGITS - 1, -1, -1, dtype=np.int64)
_HYPHENS = (8, 13, 18, 23)
# 1 for the digits of a UUID in its usual form.
_HEX = np.zeros(256, bool)
_HEX[[ord(c) for c in "0123456789abcdef"]] = True

_TEXT = rb'"[^"\\\x00-\x1f]*"'
_REST = re.compile(
    rb',"eventType":(%b),"metadata":\{"receivedAt":([1-9][0-9]{0,17})'
    rb'(?:,"version":(%b))?(?:,"tags":(\{%b:%b(?:,%b:%b)*\}))?'
    rb'(?:,"judgedBy":(%b)(?:,"flagged":(\[%b(?:,%b)*\]))?)?\}' % ((_TEXT,) * 9)
)
_HEAD_TEXT = re.compile(rb'([^"\\\x00-\x1f]*)' + re.escape(_TIME))
_tags = msgspec.json.Decoder(dict[str, str])
_flags = msgspec.json.Decoder(list[str])


class Prefixes(NamedTuple):
    """Columns of the lines that are simple, in their order."""

    simple: Mask
    event_id: pa.Array
    source_id: pa.Array
    timestamp_ms: pa.Array
    event_type: pa.Array
    received_ms: pa.Array
    version: pa.Array
    tags: pa.Array
    judged_by: pa.Array
    flags: pa.Array


class _Rest(NamedTuple):
    event_type: str
    received_ms: int
    version: str | None
    tags: list[tuple[str, str]] | None
    judged_by: str | None
    flags: list[str] | None


def read_prefixes(buffer: bytes, starts: I64, commas: I64, firsts: I64) -> Prefixes | None:
    """The simple ones among the lines of `buffer` that begin at `starts`.

    `commas` is where each line's payload is cut off (its start where it cannot be), `firsts` the
    start of the first line of the same record: lines of a record mostly name one source. None when no
    line is simple.
    """
    data = np.frombuffer(buffer, np.uint8)
    times = starts + _time_places(buffer, starts, firsts)
    simple = (times > starts) & (times + _DIGITS < commas)
    if simple.any():
        simple = _keep(simple, _ids_fit(data, starts[simple]))
    if not simple.any():
        return None
    heads = _Texts(data, starts[simple] + _HEAD, times[simple])
    rests = _Texts(data, times[simple] + _DIGITS, commas[simple])
    sources, kinds = heads.each(_source), rests.each(_rest)
    known = np.array([s is not None for s in sources])[heads.codes]
    known &= np.array([k is not None for k in kinds])[rests.codes]
    digits = _at(data, times[simple], _DIGITS) - np.uint8(ord("0"))
    milliseconds = digits.astype(np.int64) @ _POWERS
    known &= (digits < 10).all(axis=1) & (digits[:, 0] > 0)
    known &= milliseconds <= MAX_TIMESTAMP_MS
    simple = _keep(simple, known)
    if not known.any():
        return None
    source, rest = heads.codes[known], rests.codes[known]
    return Prefixes(
        simple,
        _texts(_at(data, starts[simple] + _UUID.start, 36)),
        _spread(sources, source, pa.string()),
        pa.array(milliseconds[known]),
        _spread([k and k.event_type for k in kinds], rest, pa.string()),
        pa.array([k.received_ms if k else 0 for k in kinds], pa.int64()).take(pa.array(rest)),
        _spread([k and k.version for k in kinds], rest, pa.string()),
        pa.array([k and k.tags for k in kinds], TAGS).take(pa.array(rest)),
        _spread([k and k.judged_by for k in kinds], rest, pa.string()),
        pa.array([k and k.flags for k in kinds], FLAGS).take(pa.array(rest)),
    )


def _time_places(buffer: bytes, starts: I64, firsts: I64) -> I64:
    """How far from its start each line would have its time, going by its record's first line."""
    records = np.unique(firsts)
    # A head of more than this is no source's id.
    longest = _HEAD + 4 * MAX_ID_LENGTH
    ends = [buffer.find(b'"', first + _HEAD, first + longest) for first in records.tolist()]
    places = np.where(np.array(ends) < 0, 0, np.array(ends) - records + len(_TIME))
    return places[np.searchsorted(records, firsts)]


def _ids_fit(data: Any, starts: I64) -> Mask:
    """Which lines begin as canonical ones, with a UUID in its usual form."""
    begin = _at(data, starts, _HEAD)
    fits = (begin[:, : len(_START)] == _START).all(axis=1)
    fits &= (begin[:, _UUID.stop :] == _SOURCE).all(axis=1)
    ids = begin[:, _UUID]
    hexadecimal = _HEX[ids]
    hexadecimal[:, _HYPHENS] = ids[:, _HYPHENS] == ord("-")
    found: Mask = fits & hexadecimal.all(axis=1)
    return found


def _at(data: Any, starts: I64, width: int) -> Any:
    """Bytes of fixed width at `starts`, a row each."""
    windows = np.lib.stride_tricks.sliding_window_view(data, width)
    return windows[starts]


def _texts(rows: Any) -> pa.StringArray:
    """Rows of bytes, all of one width, as texts."""
    size, width = rows.shape
    offsets = np.arange(0, (size + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(size, pa.py_buffer(offsets), pa.py_buffer(rows))


class _Texts:
    """Slices of a buffer, of which each different one is looked at once."""

    def __init__(self, data: Any, starts: I64, ends: I64) -> None:
        encoded = slices(data, starts, ends).dictionary_encode()
        self._values: list[bytes] = encoded.dictionary.to_pylist()
        self.codes: npt.NDArray[np.int32] = encoded.indices.to_numpy()

    def each(self, read: Any) -> list[Any]:
        return list(map(read, self._values))


def _keep(mask: Mask, kept: Mask) -> Mask:
    """`mask` without those of its rows that are not `kept`."""
    mask = mask.copy()
    mask[mask] = kept
    return mask


def _source(head: bytes) -> str | None:
    found = _HEAD_TEXT.fullmatch(head)
    text = found and _decoded(found[1])
    return text if text and len(text) <= MAX_ID_LENGTH else None


def _rest(text: bytes) -> _Rest | None:
    found = _REST.fullmatch(text)
    if found is None:
        return None
    event_type, version, judged_by = (
        _decoded((text or b'""')[1:-1]) for text in (found[1], found[3], found[5])
    )
    received = int(found[2])
    if not event_type or version is None or judged_by is None:
        return None
    if len(event_type) > MAX_EVENT_TYPE_LENGTH:
        return None
    if not MIN_TIMESTAMP_MS <= received <= MAX_TIMESTAMP_MS:
        return None
    tags = None
    if found[4]:
        try:
            tags = list(_tags.decode(found[4]).items())
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        # A key that is there twice.
        if len(tags) != len(re.findall(_TEXT + rb":", found[4])):
            return None
    flags = None
    if found[6]:
        try:
            flags = _flags.decode(found[6])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    return _Rest(
        event_type,
        received,
        version if found[3] else None,
        tags,
        judged_by if found[5] else None,
        flags,
    )


def _decoded(text: bytes) -> str | None:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None


def _spread(values: list[Any], codes: Any, type_: pa.DataType) -> pa.DictionaryArray:
    encoded = pa.array(values, type_).dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.take(pa.array(codes)), encoded.dictionary)


def slices(data: Any, starts: Any, ends: Any) -> pa.Array:
    """The slices [start, end) of a buffer as a binary column; copies what it keeps.

    They are in order, and none reaches into the next.
    """
    cuts = np.empty(2 * len(starts) + 1, np.int32)
    cuts[0:-1:2], cuts[1::2], cuts[-1] = starts, ends, len(data)
    # Every second element is what lies between two slices.
    cells = pa.Array.from_buffers(
        pa.binary(), len(cuts) - 1, [None, pa.py_buffer(cuts), pa.py_buffer(data)]
    )
    return cells.take(pa.array(np.arange(0, len(cuts) - 1, 2)))
