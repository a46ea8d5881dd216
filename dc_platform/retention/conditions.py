"""What is deleted, as SQL conditions on the rows of each table. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dc_platform.contracts import blocks, identity
from dc_platform.contracts.floors import EVERY_TYPE, Floor
from dc_platform.contracts.tables import (
    BRONZE_EVENTS,
    SILVER_EVENTS,
    SILVER_QUARANTINE,
    TableSpec,
)
from dc_platform.errors import ConfigurationError
from dc_platform.lake.table import Snapshot, sql_text

_LONG_AGO = -(1 << 62)
# What stands before and after a value in bytes that are no JSON: u1 is not found in u12.
_NO_WORD = "[^A-Za-z0-9_]"
_META = frozenset(r"\.+*?()|[]{}^$")


class Aged(NamedTuple):
    """A table whose rows age by `time`; `event_type` is a column, or None where rows have no type: then
    only the policy of every type holds for them.
    """

    spec: TableSpec
    time: str
    event_type: str | None


# Where retention deletes, bronze first and silver last (see `retention/deletion.py`). A table of
# aggregates is one more line: its rows age by the hour that they are of.
AGED = (
    Aged(BRONZE_EVENTS, "event_time", "event_type"),
    Aged(SILVER_QUARANTINE, "received_at", None),
    Aged(SILVER_EVENTS, "event_time", "event_type"),
)
SPECS = tuple(aged.spec for aged in AGED)


@dataclass(frozen=True)
class Conditions:
    """Which rows go. `where`: table → condition. `before`: table → columns and the time (epoch
    microseconds) before which one of them lies in every such row. `returning`: which of silver's rows
    that go need a tombstone.
    """

    where: Mapping[str, str]
    before: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    returning: str = "true"

    def of(self, spec: TableSpec) -> str | None:
        """The condition on a table's rows; None: none of them go."""
        return self.where.get(spec.name)

    def near(self, spec: TableSpec, snapshot: Snapshot) -> list[str]:
        """Files that may have such rows, relative to the table."""
        if spec.name not in self.where or not snapshot.paths:
            return []
        if spec.name not in self.before:
            return list(snapshot.actions["path"].to_pylist())
        found: dict[str, None] = {}
        for column, micros in self.before[spec.name].items():
            near = snapshot.overlapping(column, [(_LONG_AGO, micros)])
            found |= dict.fromkeys(near.actions["path"].to_pylist())
        return list(found)


def below_floors(floors: Sequence[Floor]) -> Conditions:
    """Events, and rejected ones by their receipt, that are older than the floors in force.

    Of those with a timestamp of their own none comes in again: only the others need tombstones.
    """
    where: dict[str, str] = {}
    before: dict[str, dict[str, int]] = {}
    for spec, time, event_type in AGED:
        typed = _any(_older(floor, time, event_type) for floor in floors)
        untyped = _any(_older(floor, "received_at", None) for floor in floors)
        highest = max((floor.floor_ms * 1000 for floor in floors), default=_LONG_AGO)
        columns = [time]
        if spec is BRONZE_EVENTS:
            typed = _of_bronze(f"({typed})", f"({untyped})")
            columns.append("received_at")
        where[spec.name] = typed
        before[spec.name] = dict.fromkeys(columns, highest)
    return Conditions(where, before, f"dedup_scope >= {identity.BUCKET_BASE}")


def _of_bronze(accepted: str, rejected: str) -> str:
    """Conditions on events and on rejected events as one; stubs never go again."""
    no_events = f"('{blocks.REJECTED}', '{blocks.DELETED}')"
    return (
        f"(verdict not in {no_events} and {accepted})"
        f" or (verdict = '{blocks.REJECTED}' and {rejected})"
    )


def _older(floor: Floor, time: str, event_type: str | None) -> str | None:
    conditions = [f"tenant_id = {sql_text(floor.tenant_id)}"]
    if floor.data_type != EVERY_TYPE:
        if event_type is None:
            return None
        conditions.append(f"{event_type} = {sql_text(floor.data_type)}")
    elif event_type is not None and floor.excepted:
        names = ", ".join(sql_text(name) for name in sorted(floor.excepted))
        conditions.append(f"{event_type} not in ({names})")
    conditions.append(f"{time} < make_timestamptz({floor.floor_ms * 1000})")
    return " and ".join(conditions)


def _any(conditions: Iterator[str | None] | list[str]) -> str:
    given = [f"({condition})" for condition in conditions if condition is not None]
    return " or ".join(given) or "false"


def of_person(tenant_id: str, name: str, value: str) -> Conditions:
    """Events of a tenant in which `name`, a path in the payload (or `sourceId`), is `value`, and
    rejected events whose bytes have the value as a word anywhere.

    Raises ConfigurationError for what is no path.
    """
    if not name or not value or any(not part or '"' in part for part in name.split(".")):
        raise ConfigurationError(f"{name!r} is no path in a payload, like userId or user.id")
    tenant = f"tenant_id = {sql_text(tenant_id)}"
    if name == "sourceId":
        whose = f"{tenant} and source_id = {sql_text(identity.canonical_uuid(value) or value)}"
        where = {spec.name: whose for spec in SPECS}
        return Conditions(where | {BRONZE_EVENTS.name: _of_bronze(whose, whose)})
    wanted = sql_text(value)
    path = "".join(f'."{part}"' for part in name.split("."))
    word = sql_text(f"(^|{_NO_WORD}){_escaped(value)}($|{_NO_WORD})")
    bytes_of = sql_text(_blob_text(value.encode()))
    text = "try(decode(raw))"
    silver = _json("payload", f"${path}", wanted, word)
    accepted = _json(text, f"$.payload{path}", wanted, word)
    rejected = (
        f"if({text} is null, contains(raw::varchar, {bytes_of}), regexp_matches({text}, {word}))"
        f" or {_json(text, f'$.payload{path}', wanted, 'null')}"
    )
    return Conditions(
        {
            BRONZE_EVENTS.name: f"{tenant} and raw is not null and"
            f" ({_of_bronze(accepted, f'({rejected})')})",
            SILVER_QUARANTINE.name: f"{tenant} and raw is not null and ({rejected})",
            SILVER_EVENTS.name: f"{tenant} and {silver}",
        }
    )


def _json(text: str, path: str, wanted: str, word: str) -> str:
    """Whether a member of a JSON text is the value; a text that DuckDB does not take for JSON: whether
    it has the word.
    """
    member = f"json_extract_string({text}, {sql_text(path)}) = {wanted}"
    return (
        f"coalesce(case when json_valid({text}) then {member}"
        f" else regexp_matches({text}, {word}) end, false)"
    )


def _escaped(value: str) -> str:
    return "".join(f"\\{char}" if char in _META else char for char in value)


def _blob_text(value: bytes) -> str:
    """As DuckDB shows bytes."""
    plain = set(range(32, 127)) - set(b"\"'\\")
    return "".join(chr(byte) if byte in plain else f"\\x{byte:02X}" for byte in value)
