"""A column of tags (maps of text): which of them a JSON object can hold, and that object."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.decode.columns import Indices
from dc_platform.decode.texts import Distinct, Mask, json_of, valid


def are_tags(tags: pa.MapArray) -> Mask:
    """Which rows have no tags, or have neither a null nor a key twice.

    JSON knows a key twice, the maps of the tables do not: the strict judge says which value counts.
    """
    offsets, keys, values = _cells(tags)
    row = np.repeat(np.arange(len(tags)), np.diff(offsets))
    ok = np.ones(len(tags), bool)
    ok[row[~(valid(keys) & valid(values))]] = False
    names = Distinct(keys)
    base = len(names.values) + 1
    cells = np.sort(row * base + names.codes)
    ok[cells[1:][cells[1:] == cells[:-1]] // base] = False
    return ok | ~valid(tags)


def members_of(tags: pa.MapArray) -> pa.Array:
    """What stands between the braces of each row's object; null where there are no tags."""
    offsets, keys, values = _cells(tags)
    names, texts = Distinct(keys), Distinct(values)
    members = pc.binary_join_element_wise(
        names.spread(names.each(lambda text: f"{json_of(text)}:")),
        texts.spread(texts.each(json_of)),
        "",
    )
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), members), ",")
    return pc.if_else(tags.is_valid(), joined, pa.scalar(None, pa.string()))


def stored_tags(tags: pa.MapArray) -> pa.MapArray:
    """The tags as the tables hold them: null rather than an empty map."""
    offsets, _, _ = _cells(tags)
    return pc.if_else(pa.array(np.diff(offsets) > 0), tags, pa.scalar(None, tags.type))


def _cells(tags: pa.MapArray) -> tuple[Indices, pa.Array, pa.Array]:
    """(where the rows begin and the last one ends, keys, values); null rows may have some, too."""
    offsets = tags.offsets.to_numpy().astype(np.int64)
    first, size = int(offsets[0]), int(offsets[-1] - offsets[0])
    return offsets - first, tags.keys.slice(first, size), tags.items.slice(first, size)
