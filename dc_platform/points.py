"""Where a process may die: a named point on both sides of every effect.

`make test-crash` kills a real process with SIGKILL at each of them, starts it again and audits the
lake; the simulator crashes, freezes and interleaves landers there. A point that is not armed is one
call of an empty function, once per batch or block.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from enum import StrEnum

from dc_platform.errors import ConfigurationError

Reached = Callable[[str], None]


class Point(StrEnum):
    """A point that a process passes. `part` is the part that passes it, `meaning` what has just
    happened there, or is just to happen.
    """

    part: str
    meaning: str

    def __new__(cls, value: str, part: str, meaning: str) -> Point:
        """A member that is its name."""
        point = str.__new__(cls, value)
        point._value_ = value
        point.part = part
        point.meaning = meaning
        return point

    # --- from the request to Kafka ---
    BEFORE_BLOCK = "before block", "gateway", "a block is full; nothing of it was sent"
    BLOCK_QUEUED = "block queued", "gateway", "Kafka's client has the block, no answer came yet"
    BLOCK_ACKED = "block acked", "gateway", "Kafka has the block; the requests in it do not know"
    BEFORE_ANSWER = "before answer", "gateway", "Kafka has all of a request; no answer was sent"

    # --- from Kafka to a batch ---
    POLLED = "polled", "landing", "records were polled, and not yet counted"
    DECODED = "decoded", "landing", "the records of a batch were judged"
    HANDED_OVER = "handed over", "landing", "the reader gave a batch to the committer"

    # --- a batch into the tables ---
    BEFORE_GAPS = "before gaps", "landing", "Kafka deleted offsets; ops.gaps does not say so yet"
    GAPS_RECORDED = "gaps recorded", "landing", "ops.gaps names them; no more is landed"
    BEFORE_BRONZE = "before bronze", "landing", "no file of bronze is written"
    BRONZE_WRITTEN = "bronze written", "landing", "bronze's file is written, its commit is next"
    AFTER_BRONZE = "after bronze", "landing", "bronze is committed"
    QUARANTINE_WRITTEN = "quarantine written", "landing", "its file is written, not committed"
    AFTER_QUARANTINE = "after quarantine", "landing", "quarantine is committed"
    SILVER_FILE = "silver file", "landing", "silver's file is written, its identities are not"
    IDENTITY_FILE = "identity file", "landing", "the identities beside silver's file are written"
    SILVER_WRITTEN = "silver written", "landing", "silver's commit is next"
    SILVER_COMMITTED = "silver committed", "landing", "silver is committed; memory does not know"
    AFTER_SILVER = "after silver", "landing", "the identities are in memory, the border is next"
    BORDER_PUBLISHED = "border published", "landing", "ops.landing_border has the new border"
    BRONZE_READ = "bronze read", "landing", "rows that only bronze still has are about to land"

    # --- small files into large ones ---
    MERGED_WRITTEN = "merged written", "landing", "files are merged into one, its commit is next"
    MERGED_COMMITTED = "merged committed", "landing", "the merged file replaced its files"

    # --- the lease of a landing run ---
    LEASE_TAKEN = "lease taken", "landing run", "the lease is held, landing has not begun"
    BEFORE_RELEASE = "before release", "landing run", "the last commit is made, the lease is held"
    LEASE_RELEASED = "lease released", "landing run", "the lease is given up"

    # --- quarantined events once more ---
    REPLAY_JUDGED = "replay judged", "replay", "events pass now; nothing of them was sent"
    REPLAY_SENT = "replay sent", "replay", "Kafka has their blocks, the acks topic does not say so"
    REPLAY_ACKED = "replay acked", "replay", "the acks topic says so, ops.replays does not"
    REPLAY_RECORDED = "replay recorded", "replay", "ops.replays has them"

    # --- silver of a day built anew ---
    BACKFILL_WRITTEN = "backfill written", "backfill", "the day's files are written, not committed"
    BACKFILL_COMMITTED = "backfill committed", "backfill", "the day's files replaced the old ones"

    # --- old files ---
    TIER_WRITTEN = "tier written", "tiers", "old files are written anew, their commit is next"
    TIER_COMMITTED = "tier committed", "tiers", "the files of the tier replaced the old ones"

    # --- a deletion ---
    TOMBSTONES_WRITTEN = "tombstones written", "deletion", "what could return has tombstones"
    ERASED_WRITTEN = "erased written", "deletion", "files without the rows are written"
    ERASED_COMMITTED = "erased committed", "deletion", "some files of a table are replaced"
    TABLES_ERASED = "tables erased", "deletion", "no table's newest version has the rows"
    FILES_REMOVED = "files removed", "deletion", "the replaced files are gone, nothing is proved"
    DELETION_PROVED = "deletion proved", "deletion", "no file has the rows, ops.deletions is next"
    DELETION_RECORDED = "deletion recorded", "deletion", "ops.deletions has it, it is still pending"
    # --- silver as it was ---
    RESTORE_FILES = "restore files", "restore", "the files that come back have new names beside it"
    RESTORE_BORDER = "restore border", "restore", "the border is back, silver's commit is next"
    RESTORE_COMMITTED = "restore committed", "restore", "files and offsets are back, as a new epoch"
    LAKE_COPIED = "lake copied", "restore", "an empty lake's tables are copied, beside their place"
    LAKE_RESTORED = "lake restored", "restore", "they are in their place"

    # --- a copy of the lake ---
    BACKUP_COPIED = "backup copied", "backup", "the files are copied, the manifest is not written"
    BACKUP_WRITTEN = "backup written", "backup", "the manifest is there; older backups go next"
    # --- aggregates of touched hours ---
    GOLD_BUILT = "gold built", "gold", "dbt has built and tested the hours; nothing is published"
    GOLD_WRITTEN = "gold written", "gold", "a table's files are written, not committed"
    GOLD_COMMITTED = "gold committed", "gold", "a table has its new rows; others may lack theirs"

    # --- words into the search index ---
    FILE_INDEXED = "file indexed", "search", "a file's words are gathered; the index lacks them"
    INDEX_WRITTEN = "index written", "search", "all words are gathered, the index's commit is next"
    INDEX_COMMITTED = "index committed", "search", "the index has them, and says so"


def unarmed(point: str) -> None:
    """What happens at a point."""


def armed(crash_at: str) -> Reached:
    """The hook for `DCP_CRASH_AT`: `point[:nth]` ends this process by SIGKILL when it gets to that
    point for the nth time (from 1). Raises ConfigurationError for a point that there is not.
    """
    if not crash_at:
        return unarmed
    name, _, nth = crash_at.partition(":")
    try:
        wanted = {point.value: point for point in Point}[name.replace("-", " ")]
        times = int(nth or 1)
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"DCP_CRASH_AT: {crash_at!r} is no point[:nth]; the points are in docs/reliability.md"
        ) from None
    passed: Counter[str] = Counter()

    def reached(point: str) -> None:
        passed[point] += 1
        if point == wanted and passed[point] == times:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached
