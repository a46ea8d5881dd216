"""Search without an index and without SQL: what a person would say that an event has; and silver that
changes as landing, compaction and deletions change it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.origins import keep_origin
from dc_platform.lake.parquet import DataFile
from dc_platform.lake.rewrite import Cancellation, merge_files
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.search.build import Builder
from dc_platform.search.home import Home
from dc_platform.search.index import Moment
from dc_platform.search.language import AllOf, Not, Phrase, Tree
from dc_platform.settings import Settings
from dc_platform_tests.helpers.events import some_uuid
from dc_platform_tests.helpers.lake import DAY, read_table, silver_row, write_silver

Row = Mapping[str, Any]


# --- the naive truth ---


def values_of(row: Row) -> list[str]:
    """The texts of an event."""
    found = [row["event_type"]]

    def look(value: Any) -> None:
        if isinstance(value, dict):
            for member in value.values():
                look(member)
        elif isinstance(value, list):
            for member in value:
                look(member)
        elif isinstance(value, str):
            found.append(value)

    look(json.loads(row["payload"], parse_int=str, parse_float=str))
    return found + [value for _, value in row.get("tags") or ()]


@lru_cache(maxsize=10_000)
def naive_words(text: str) -> list[str]:
    """The words of a text, for texts without scripts that have no spaces."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if ord(c) not in MARKS)
    return [word for word in re.findall(r"[^\W_]+", plain) if len(word) <= 64]


MARKS = range(0x300, 0x370)


def matches(row: Row, tree: Tree) -> bool:
    """Whether an event has what the tree says."""
    if isinstance(tree, Not):
        return not matches(row, tree.inner)
    if isinstance(tree, Phrase):
        return any(_has(naive_words(text), tree) for text in values_of(row))
    every = all if isinstance(tree, AllOf) else any
    return every(matches(row, part) for part in tree.parts)


def _has(words: Sequence[str], phrase: Phrase) -> bool:
    *first, last = phrase.words
    for at in range(len(words) - len(first)):
        there = words[at + len(first)]
        same = there.startswith(last) if phrase.prefix else there == last
        if same and list(words[at : at + len(first)]) == first:
            return True
    return False


def assert_true(at: Moment) -> None:
    """Each file that an index says it has it has whole, and it has nothing else."""
    for path, file in at.state.files.items():
        assert at.rows_of(file.pieces) == file.rows, path
    assert at.documents == at.state.rows


# --- silver that changes ---


class Changing:
    """Silver in a directory; `live` is what it has, by event id."""

    def __init__(self, directory: Path, seed: int = 0) -> None:
        self.settings = Settings(data_dir=directory)
        self.lake = Lake(self.settings.lake)
        self.lake.ensure(SILVER_EVENTS)
        self.table = LakeTable(self.lake, SILVER_EVENTS)
        self.live: dict[str, dict[str, Any]] = {}
        self.files: dict[str, list[dict[str, Any]]] = {}
        self._random = Random(seed)
        self._next = 0

    def builder(self, **more: Any) -> Builder:
        """A new process's."""
        return Builder(self.settings, **more)

    @property
    def index(self) -> Path | None:
        """The index that is searched."""
        return Home(self.settings.data_dir).current()

    def rows(self, texts: Iterable[str], **columns: Any) -> list[dict[str, Any]]:
        """Events with these texts, one after the other."""
        made = []
        for text in texts:
            payload = json.dumps({"message": text, "n": self._next})
            row = silver_row(self._next, event_id=some_uuid(self._next), payload=payload)
            made.append({**row, "event_time": row["event_time"] + self._next % 7, **columns})
            self._next += 1
        return made

    def land(self, rows: Sequence[dict[str, Any]]) -> None:
        """One commit of landing."""
        file = write_silver(self.lake, rows)
        self.table.refresh()
        self.table.commit([file], txns={}, exact=True)
        self.files[file.path] = list(rows)
        self.live |= {row["event_id"]: row for row in rows}

    def compact(self, paths: Sequence[str], *, ordered: bool, remembered: bool = True) -> None:
        """What compaction does with files; `remembered`: whether it can keep what it merged."""
        cancelled = Cancellation()
        file = merge_files(
            self.lake, SILVER_EVENTS, paths, DAY, ordered=ordered, cancelled=cancelled
        )
        if remembered:
            keep_origin(self.lake, SILVER_EVENTS, file.path, paths)
        self.table.refresh()
        assert self.table.rewrite(paths, file, metadata={"dcp.compaction": "{}"}) is not None
        self.files[file.path] = [row for path in paths for row in self.files.pop(path)]

    def delete(self, path: str, event_ids: set[str]) -> None:
        """What retention does: a file is written anew without some rows, and what it was made from is
        kept beside it, as compaction does.
        """
        kept = [row for row in self.files.pop(path) if row["event_id"] not in event_ids]
        files = [self._written(kept, path)] if kept else []
        self.table.refresh()
        self.table.put_in_place([path], files, metadata={"dcp.delete": "{}"})
        self.files |= {file.path: kept for file in files}
        self.live = {i: row for i, row in self.live.items() if i not in event_ids}

    def _written(self, rows: Sequence[dict[str, Any]], of: str) -> DataFile:
        cancelled = Cancellation()
        part = write_silver(self.lake, rows).path
        file = merge_files(
            self.lake, SILVER_EVENTS, [part], DAY, ordered=False, cancelled=cancelled
        )
        keep_origin(self.lake, SILVER_EVENTS, file.path, [of])
        return file

    def clean(self) -> None:
        """What maintenance does in the end: files that are not live are deleted."""
        for entry in self.lake.listing(SILVER_EVENTS, deep=True):
            is_data = entry.path.endswith(".parquet") and "_delta_log" not in entry.path
            if is_data and entry.path not in self.files:
                self.lake.remove(SILVER_EVENTS, entry.path)

    def something(self) -> None:
        """A landing, compaction or deletion, by chance."""
        random, paths = self._random, list(self.files)
        what = random.choice(["land", "land", "compact", "compact", "delete", "clean"])
        if what == "land" or len(paths) < 2:
            texts = (random.choice(TEXTS) for _ in range(random.randrange(1, 6)))
            self.land(self.rows(texts))
        elif what == "compact":
            chosen = random.sample(paths, random.randrange(2, min(len(paths), 4) + 1))
            self.compact(chosen, ordered=random.random() < 0.5, remembered=random.random() < 0.9)
        elif what == "delete":
            path = random.choice(paths)
            ids = [row["event_id"] for row in self.files[path]]
            self.delete(path, set(random.sample(ids, random.randrange(1, len(ids) + 1))))
        else:
            self.clean()

    def rows_in_silver(self) -> int:
        """For a test of the test."""
        return len(read_table(self.lake, SILVER_EVENTS, "event_id"))


TEXTS = (
    "disk failure on node-7",
    "Disk quota exceeded: 1.50 GB",
    "café Größe naïve",
    "checkout failed for user-42",
    "time-out after 30 s",
    "failure of the checkout",
    "",
)
QUERIES = (
    "disk",
    '"disk failure"',
    '"failure disk"',
    "disk failure",
    "disk OR checkout -user",
    "NOT disk",
    "(quota OR failed) NOT (exceeded node)",
    "fail*",
    '"failed fo"*',
    "node-7",
    "1.50",
    "CAFE grosse OR Größe",
    "t",
)
