"""Checks of whole columns of text: what costs a microsecond a row in Python costs some nanoseconds
here. A row that does not pass is not refused by that: the strict judge looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.envelope import MAX_DEPTH, is_payload, is_too_deep

Mask = npt.NDArray[np.bool_]

_UUID_LENGTH = 36
_HYPHENS = (8, 13, 18, 23)
_string = msgspec.json.Encoder().encode
_values = msgspec.json.Decoder(msgspec.Raw).decode_lines


class Distinct:
    """A column of which each different text is looked at once; null is the last of its texts."""

    def __init__(self, column: pa.StringArray) -> None:
        encoded = column.dictionary_encode()
        self.values: list[str] = encoded.dictionary.to_pylist()
        self.codes = encoded.indices.fill_null(len(self.values)).to_numpy()

    def have(self, shortest: int, longest: int, *, null: bool) -> Mask:
        """Which rows have so many characters; for missing texts: `null`."""
        fits = [shortest <= len(text) <= longest for text in self.values]
        found: Mask = np.array([*fits, null])[self.codes]
        return found

    def each(self, write: Callable[[str], str]) -> list[str | None]:
        """What `write` makes of each text, and of none."""
        return [*map(write, self.values), None]

    def spread(self, values: Sequence[str | None]) -> pa.StringArray:
        """A column that has in each row what `values` has for the row's text."""
        return pa.array(values, pa.string()).take(pa.array(self.codes))


def json_of(text: str) -> str:
    """The JSON string literal of a text."""
    return _string(text).decode()


def valid(column: pa.Array) -> Mask:
    """Which rows are not null."""
    return column.is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def lengths(column: pa.StringArray) -> npt.NDArray[np.int64]:
    """The bytes of each text; those of a missing one are 0."""
    return pc.binary_length(column).fill_null(0).to_numpy().astype(np.int64)  # type: ignore[no-any-return]


def are_uuids(column: pa.StringArray) -> Mask:
    """Which rows are UUIDs in the 8-4-4-4-12 form, in any case (`identity.canonical_uuid`)."""
    found: Mask = lengths(column) == _UUID_LENGTH
    if not found.all():
        column = column.filter(pa.array(found))
    starts, data = _bytes_of(column)
    characters = data[starts[0] : starts[-1]].reshape(-1, _UUID_LENGTH)
    fits = (characters - ord("0") < 10) | ((characters | 0x20) - ord("a") < 6)
    fits[:, _HYPHENS] = characters[:, _HYPHENS] == ord("-")
    if not fits.all():
        found[found] = fits.all(axis=1)
    return found


def are_payloads(column: pa.StringArray) -> Mask:
    """Which rows are JSON objects that an event can have as its payload."""
    starts, data = _bytes_of(column)
    sizes = lengths(column)
    ok: Mask = sizes >= 2
    opens, closes = data[starts[:-1][ok]], data[starts[:-1][ok] + sizes[ok] - 1]
    ok[ok] = (opens == ord("{")) & (closes == ord("}"))
    texts = column.cast(pa.binary())
    if not ok.all():
        texts = pc.if_else(pa.array(ok), texts, b"{}")
    if not _are_json_each(texts):
        ok &= np.fromiter(map(is_payload, texts.to_pylist()), bool, len(texts))
        return ok
    # What is shorter cannot be too deep.
    for row in np.flatnonzero(ok & (sizes > 2 * (MAX_DEPTH - 1))):
        ok[row] = not is_too_deep(texts[row].as_py(), MAX_DEPTH - 1)
    return ok


def _are_json_each(texts: pa.BinaryArray) -> bool:
    """Whether texts between braces are one JSON value each, all read in one go: a call for each
    costs three times as much.

    No value reaches over the border of two texts. In a string the line end would be an error, and
    elsewhere the closing brace before it is never followed by an opening one. So each text has one
    value at least, and if there are as many values as texts, just one.
    """
    borders = pa.array([0, len(texts)], pa.int32())
    joined = pc.binary_join(pa.ListArray.from_arrays(borders, texts), b"\n")[0]
    try:
        return len(_values(joined.as_buffer())) == len(texts)
    except (msgspec.DecodeError, RecursionError):
        return False


def _bytes_of(column: pa.StringArray) -> tuple[npt.NDArray[np.int64], Any]:
    """(where the texts start, and the last one ends; the bytes)."""
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    return starts.astype(np.int64), np.frombuffer(data or b"", np.uint8)
