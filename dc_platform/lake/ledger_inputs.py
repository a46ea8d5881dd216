"""What an update of the ledger was made of: the live files of the tables that it follows.

Kept beside the ledger, in `_inputs/` of its directory, under a name that the update's commit carries.
The tables' own logs cannot tell: bronze's keeps 200 commits, which three landings a second fill in a
minute, and an update comes every five. A file that is gone may be gone from the disk, too, so its hours
are here.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from dc_platform.contracts.ops_tables import LEDGER
from dc_platform.contracts.tables import TableSpec
from dc_platform.lake.balance import HOUR_US
from dc_platform.lake.origins import origin_of
from dc_platform.lake.store import Lake
from dc_platform.lake.table import Snapshot

log = logging.getLogger(__name__)

_FOLDER = "_inputs"
# Those of an update that was refused, or killed: by then no other one can be about to commit them.
_LEFT_SECONDS = 3600.0

# A file's first and last epoch hour; None where the log does not say.
Span = tuple[int | None, int | None]


@dataclass(frozen=True)
class Inputs:
    """`files`: table → path, relative to the table → the hours of its rows. `open_hours`: those that
    may change although nobody touches them.
    """

    open_hours: list[int]
    files: dict[str, dict[str, Span]]


@dataclass(frozen=True)
class News:
    """How a table differs: absolute paths of files with rows that may be new, and the spans of files
    whose rows may be gone.
    """

    paths: list[str]
    gone: list[Span]


def spans(snapshot: Snapshot, column: str) -> dict[str, Span]:
    """The live files with their hours."""
    low, high = (bound.cast(pa.int64()).to_pylist() for bound in snapshot.bounds(column))
    hours = ((_hour(a), _hour(b)) for a, b in zip(low, high, strict=True))
    return dict(zip(snapshot.actions["path"].to_pylist(), hours, strict=True))


def _hour(micros: int | None) -> int | None:
    return None if micros is None else micros // HOUR_US


def news(lake: Lake, spec: TableSpec, snapshot: Snapshot, before: Mapping[str, Span]) -> News:
    """What came and went since. Files that compaction merged are neither, as far as it is known what
    they were merged from.
    """
    live: list[str] = snapshot.actions["path"].to_pylist()
    merged: set[str] = set()

    def is_known(path: str) -> bool:
        if path in before:
            return True
        of = origin_of(lake, spec, path)
        if of is None:
            return False
        merged.update(of)
        # Every one is looked at, whatever the first is: each that is named here is not gone.
        unknown = [origin for origin in of if not is_known(origin)]
        return not unknown

    fresh = [path for path in live if not is_known(path)]
    gone = set(before) - set(live) - merged
    return News([f"{snapshot.root}/{path}" for path in fresh], [before[path] for path in gone])


def keep(lake: Lake, inputs: Inputs) -> str:
    """Keep them for the next update; gives their name. Without them it makes everything anew."""
    name = f"{_FOLDER}/{uuid.uuid4()}.json"
    content = {"open_hours": inputs.open_hours, "files": inputs.files}
    try:
        with lake.output(LEDGER, name) as sink:
            sink.write(json.dumps(content).encode())
    except OSError as error:
        lake.remove(LEDGER, name)
        log.warning("what the ledger was made of is not kept: %s", error)
    return name


def recall(lake: Lake, name: str) -> Inputs | None:
    """Those of an update; None when they are not there."""
    content = lake.mapped(LEDGER, name) if name else None
    if content is None:
        return None
    try:
        known = json.loads(bytes(content))
        files = {
            table: {path: (low, high) for path, (low, high) in of.items()}
            for table, of in known["files"].items()
        }
        return Inputs(list(known["open_hours"]), files)
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("%s of the ledger is damaged: everything is made anew", name)
        return None


def forget_others(lake: Lake, name: str, before: str) -> None:
    """Remove those of the update before, and what refused ones left."""
    oldest = time.time() - _LEFT_SECONDS
    for entry in lake.listing(LEDGER, _FOLDER):
        if entry.path != name and (entry.path == before or entry.modified < oldest):
            lake.remove(LEDGER, entry.path)
