"""A Delta store in memory, as delta-rs shows it: logs are lists, data files are real.

`SimDelta` stands in the place of `deltalake.DeltaTable`; the platform's own `LakeTable`, and all above
it, run on it unchanged. A log entry is put at a version that must be free, as on a store with
conditional puts. What may go wrong at a put is the whole list:

    before   the store refuses; nothing was put
    after    the entry is in the log, and the answer is an error
    taken    the entry is in the log, and the answer is a conflict: a repeated put found itself
    late     an error now; the entry is put later, if its version is still free then
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction

from dc_platform.contracts.tables import TableSpec
from dc_platform.lake.store import Lake


class Hooks(Protocol):
    """Who works on the store, and what happens to the work."""

    def pause(self, at: str) -> None:
        """A moment at which another one may go on."""

    def trouble(self, operation: str) -> str | None:
        """What goes wrong with `put`, `read` or `write`; None: nothing."""


class Calm:
    """Nothing ever happens."""

    def pause(self, at: str) -> None:
        """Go on."""

    def trouble(self, operation: str) -> str | None:
        """Nothing."""
        return None


class Entry(NamedTuple):
    """A commit. `version` is the one that it was made for."""

    version: int
    adds: list[AddAction]
    removes: list[str]
    txns: dict[str, int]
    metadata: dict[str, Any]
    timestamp: int


class State(NamedTuple):
    """A version of a table: live files with their rows of the log, and the offsets."""

    files: dict[str, dict[str, Any]]
    txns: dict[str, int]


@dataclass
class TableLog:
    """The log of a table: the truth."""

    spec: TableSpec
    entries: list[Entry] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def put(self, entry: Entry) -> bool:
        """Put an entry at its version; False when that is taken."""
        if entry.version != len(self.entries):
            return False
        files, txns = self.states[-1] if self.states else ({}, {})
        files = {path: row for path, row in files.items() if path not in entry.removes}
        for add in entry.adds:
            files[add.path] = _row(add, self.spec)
        self.entries.append(entry)
        self.states.append(State(files, {**txns, **entry.txns}))
        return True


@dataclass
class SimStore:
    """Where all logs are. Its clock is in epoch milliseconds."""

    root: Path
    now_ms: int = 1_700_000_000_000
    logs: dict[str, TableLog] = field(default_factory=dict)
    # Entries on their way that an error was already answered for.
    late: list[tuple[TableLog, Entry]] = field(default_factory=list)

    def lake(self, hooks: Hooks | None = None) -> SimLake:
        """The lake as one of its users sees it."""
        return SimLake(self, hooks or Calm())


class SimLake(Lake):
    """A lake whose logs are in memory."""

    def __init__(self, store: SimStore, hooks: Hooks) -> None:
        super().__init__(str(store.root))
        self._store = store
        self.hooks = hooks

    def open(self, spec: TableSpec, version: int | None = None) -> Any:
        """The table at its newest version: landing asks for no other."""
        assert version is None
        if self.hooks.trouble("read"):
            raise DeltaError("the store is away")
        if spec.name not in self._store.logs:
            raise TableNotFoundError(spec.name)
        return SimDelta(self._store, self._store.logs[spec.name], self.hooks)

    def exists(self, spec: TableSpec) -> bool:
        """Whether the table was created."""
        return spec.name in self._store.logs

    def ensure(self, spec: TableSpec) -> None:
        """Create the table when it is missing."""
        if not self.exists(spec):
            log = self._store.logs[spec.name] = TableLog(spec)
            log.put(Entry(0, [], [], {}, {}, self._store.now_ms))

    def output(self, spec: TableSpec, path: str) -> Any:
        """An output stream; a disk that is full leaves a piece of the file."""
        stream = super().output(spec, path)
        if self.hooks.trouble("write"):
            stream.write(b"PAR1 and no more")
            stream.close()
            raise OSError("no space left")
        return stream

    def remove(self, spec: TableSpec, path: str) -> None:
        """Delete a file."""
        self.hooks.pause("remove")
        super().remove(spec, path)


class SimDelta:
    """A table at a snapshot: what `lake/table.py` uses of `deltalake.DeltaTable`."""

    def __init__(self, store: SimStore, log: TableLog, hooks: Hooks) -> None:
        self._store = store
        self._log = log
        self._hooks = hooks
        self._version = len(log.entries) - 1

    def version(self) -> int:
        """Version of the snapshot."""
        return self._version

    def schema(self) -> Any:
        """The schema is handed back at a commit, and nothing else."""
        return self._log.spec.columns

    def metadata(self) -> Any:
        """The table's id: random in reality, the same in each run here."""
        members = {"id": f"id of {self._log.spec.name}", "configuration": self._log.spec.properties}
        return type("Metadata", (), members)

    def update_incremental(self) -> None:
        """Move to the newest version."""
        self._hooks.pause("refresh")
        if self._hooks.trouble("read"):
            raise DeltaError("the store is away")
        self._version = len(self._log.entries) - 1

    def transaction_version(self, app_id: str) -> int | None:
        """The offset of an app id in this snapshot."""
        return self._log.states[self._version].txns.get(app_id)

    def get_add_actions(self, flatten: bool = True) -> pa.Table:
        """The live files of this snapshot with their statistics."""
        assert flatten
        rows = list(self._log.states[self._version].files.values())
        schema = _actions_schema(self._log.spec)
        return pa.Table.from_pylist(rows, schema=schema)

    def history(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Commits, newest first: `limit` up to this snapshot, and all after it. As with delta-rs the
        newest has the snapshot's version.
        """
        self._hooks.pause("history")
        if self._hooks.trouble("read"):
            raise DeltaError("the store is away")
        oldest = 0 if limit is None else max(0, self._version + 1 - limit)
        entries = self._log.entries[oldest:][::-1]
        return [
            {**entry.metadata, "version": self._version - place, "timestamp": entry.timestamp}
            for place, entry in enumerate(entries)
        ]

    def create_write_transaction(
        self,
        actions: Sequence[Any],
        mode: str,
        schema: Any,
        partition_by: Any = None,
        commit_properties: Any = None,
        post_commithook_properties: Any = None,
    ) -> None:
        """Commit: a compare-and-swap without retries, else rebased over other app ids' commits."""
        self._hooks.pause("put")
        trouble = self._hooks.trouble("put")
        entry = self._entry(actions, commit_properties)
        if trouble == "before":
            raise DeltaError("the store refused")
        if trouble == "late":
            self._store.late.append((self._log, entry))
            raise DeltaError("the store did not answer")
        assert self._log.put(entry)
        self._hooks.pause("put done")
        if trouble == "after":
            raise DeltaError("the connection was reset")
        if trouble == "taken":
            raise CommitFailedError("the version is taken")

    def _entry(self, actions: Sequence[Any], properties: Any) -> Entry:
        txns = {t.app_id: t.version for t in properties.app_transactions or ()}
        newer = self._log.entries[self._version + 1 :]
        if newer and properties.max_commit_retries == 0:
            raise CommitFailedError("a newer version exists")
        if any(txns.keys() & entry.txns.keys() for entry in newer):
            raise CommitFailedError("Concurrent transaction failed")
        if any(entry.removes for entry in newer):
            raise CommitFailedError("a concurrent transaction deleted data this operation read")
        return Entry(
            len(self._log.entries),
            [a for a in actions if isinstance(a, AddAction)],
            [a.path for a in actions if not isinstance(a, AddAction)],
            txns,
            dict(properties.custom_metadata or {}),
            self._store.now_ms,
        )


def _actions_schema(spec: TableSpec) -> pa.Schema:
    numbers = ("size_bytes", "modification_time", "num_records")
    fields = [("path", pa.string()), *((name, pa.int64()) for name in numbers)]
    for side in ("min", "max"):
        fields += [(f"{side}.{n}", spec.columns.field(n).type) for n in _bounded(spec)]
    if spec.partition_by:
        fields.append((f"partition.{spec.partition_by}", pa.date32()))
    return pa.schema(fields)


def _bounded(spec: TableSpec) -> list[str]:
    """Columns whose bounds are shown: those of times are not looked at by landing."""
    return [n for n in spec.statistics if not pa.types.is_timestamp(spec.columns.field(n).type)]


def _row(add: AddAction, spec: TableSpec) -> dict[str, Any]:
    stats: Mapping[str, Any] = json.loads(add.stats)
    row = {
        "path": add.path,
        "size_bytes": add.size,
        "modification_time": add.modification_time,
        "num_records": stats["numRecords"],
    }
    for side in ("min", "max"):
        row |= {f"{side}.{n}": stats[f"{side}Values"].get(n) for n in _bounded(spec)}
    if spec.partition_by:
        value = add.partition_values[spec.partition_by]
        row[f"partition.{spec.partition_by}"] = date.fromisoformat(value) if value else None
    return row
