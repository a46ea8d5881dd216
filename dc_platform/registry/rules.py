"""What is asked of a source's events at a time: from the append-only history, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from dc_platform.contracts.schema import definition_of
from dc_platform.contracts.schema_check import Checker, Rules
from dc_platform.registry.models import (
    SchemaBindingRow,
    SchemaRow,
    SchemaVersionRow,
    SourceFailureRow,
)

# After everything that is known.
NEWEST = 1 << 62


class _Version(NamedTuple):
    from_ms: int
    version: int
    name: str
    content: Mapping[str, Any]


class Checkers:
    """Versions that were compiled; a version never changes, so each is compiled once."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, int], Checker] = {}

    def of(self, schema_id: str, found: _Version) -> Checker:
        """The compiled version."""
        key = (schema_id, found.version)
        checker = self._made.get(key)
        if checker is None:
            definition = definition_of(found.content)
            checker = self._made[key] = Checker(schema_id, found.version, found.name, definition)
        return checker


class RuleHistory:
    """Bindings, versions and failures as one reading of the registry found them."""

    def __init__(
        self,
        checkers: Checkers,
        bindings: Mapping[str, Sequence[tuple[int, str, str | None]]],
        versions: Mapping[str, Sequence[_Version]],
        failures: Mapping[str, Sequence[tuple[int, int | None, str]]],
    ) -> None:
        self._checkers = checkers
        self._bindings = bindings
        self._versions = versions
        self._failures = failures

    def at(self, source_id: str, at_ms: int) -> Rules | None:
        """What was asked of a source's events at a time; None: nothing."""
        failures = self._failures.get(source_id, ())
        bindings = self._bindings.get(source_id, ())
        if not failures and not bindings:
            return None
        failure = next(
            (
                f"source {source_id} has failed: {message}"
                for begun, ended, message in failures
                if begun <= at_ms and (ended is None or at_ms < ended)
            ),
            None,
        )
        slots = {slot: schema for begun, slot, schema in bindings if begun <= at_ms}
        checkers = {}
        for slot, schema_id in slots.items():
            checker = None if schema_id is None else self._in_force(schema_id, at_ms)
            if checker is not None:
                checkers[slot] = checker
        return Rules(checkers, failure) if checkers or failure else None

    def _in_force(self, schema_id: str, at_ms: int) -> Checker | None:
        found = [v for v in self._versions.get(schema_id, ()) if v.from_ms <= at_ms]
        return self._checkers.of(schema_id, found[-1]) if found else None


def read_rules(session: Session, checkers: Checkers) -> RuleHistory:
    """Everything that was ever asked of anybody."""
    bindings: dict[str, list[tuple[int, str, str | None]]] = {}
    for bound in session.scalars(select(SchemaBindingRow).order_by(SchemaBindingRow.number)):
        entry = (bound.from_ms, bound.event_type, bound.schema_id)
        bindings.setdefault(bound.source_id, []).append(entry)
    versions: dict[str, list[_Version]] = {}
    query = (
        select(SchemaVersionRow, SchemaRow.name)
        .join(SchemaRow, SchemaRow.schema_id == SchemaVersionRow.schema_id)
        .order_by(SchemaVersionRow.schema_id, SchemaVersionRow.version)
    )
    for row, name in session.execute(query):
        found = _Version(row.from_ms, row.version, name, row.content)
        versions.setdefault(row.schema_id, []).append(found)
    failures: dict[str, list[tuple[int, int | None, str]]] = {}
    for failed in session.scalars(select(SourceFailureRow).order_by(SourceFailureRow.number)):
        period = (failed.from_ms, failed.until_ms, failed.message)
        failures.setdefault(failed.source_id, []).append(period)
    return RuleHistory(checkers, bindings, versions, failures)
