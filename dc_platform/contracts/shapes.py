"""A typed view of the events of one schema: which columns it has, and from where. Pure.

`typed.NAME` in SQL has every column of `events`, one more for each field that any version of the
schema has or had, and the columns of the reference tables that its fields name. Nothing is stored
twice: the view reads the payload, whose bytes never change, so a new version of the schema is seen at
once and for old events too, with the defaults of the newest version that has the field.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple


class TypedField(NamedTuple):
    """A field of the payload: its path, one of the design's types, what stands where it is absent."""

    name: str
    type: str
    default: Any = None


class Enrichment(NamedTuple):
    """Rows of `ref.<reference>` whose key is the value of `field`."""

    field: str
    reference: str


class Shape(NamedTuple):
    """What `typed.<name>` has: events of these sources, of one type or of all."""

    name: str
    source_ids: Sequence[str]
    event_type: str | None
    fields: Sequence[TypedField]
    enrichments: Sequence[Enrichment] = ()


def column_names(fields: Sequence[TypedField], taken: Collection[str]) -> Iterator[str]:
    """A column for each field: its name, dots as `_`; `payload_…` where that is taken.

    Two fields never share a name: `_2`, `_3` … are added to later ones.
    """
    used = {name.lower() for name in taken}
    for field in fields:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", field.name)
        name = f"payload_{plain}" if plain.lower() in used or not plain else plain
        name = free_name(name, used)
        used.add(name.lower())
        yield name


def free_name(wanted: str, taken: Collection[str]) -> str:
    """The name, or the first of `_2`, `_3` … after it whose lower case is not `taken`."""
    name, number = wanted, 1
    while name.lower() in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
