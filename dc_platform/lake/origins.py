"""Beside a file that compaction merged, the names of those that it was merged from.

It has exactly their rows, so whoever knew them learns nothing from it. The log says the same, in
commits that change no data, but it is cleaned every 15 seconds down to 200 commits, minutes of a
flood. The names are a cache: without them the file counts as a new one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import PurePosixPath

from dc_platform.contracts.tables import TableSpec
from dc_platform.lake.store import Lake

log = logging.getLogger(__name__)

# In a table's directory, where silver has its identities, too; no reader of Delta looks into it.
FOLDER = "_identities"


def keep_origin(lake: Lake, spec: TableSpec, data_path: str, of: Sequence[str]) -> None:
    """Keep that a data file has exactly the rows of the files `of`; all relative to the table."""
    try:
        with lake.output(spec, _beside(data_path)) as sink:
            sink.write(json.dumps(list(of)).encode())
    except OSError as error:
        log.warning("what %s was merged from is not kept: %s", data_path, error)


def origin_of(lake: Lake, spec: TableSpec, data_path: str) -> list[str] | None:
    """What a data file was merged from, relative to the table; None when that is not known."""
    content = lake.mapped(spec, _beside(data_path))
    if content is None:
        return None
    try:
        return [str(path) for path in json.loads(bytes(content))] or None
    except ValueError:
        return None


def remove_origin(lake: Lake, spec: TableSpec, data_path: str) -> None:
    """Forget that of a data file that was never committed."""
    lake.remove(spec, _beside(data_path))


def _beside(data_path: str) -> str:
    return f"{FOLDER}/{PurePosixPath(data_path).name}.from"
