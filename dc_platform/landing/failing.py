"""Sources that a rule of their schema fails: told to the registry before the event lands.

Landing sees every event, a stranger's too, and sees it again when it was killed before the commit; the
registry takes the first report for an event alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.reasons import Reason

if TYPE_CHECKING:
    from dc_platform.registry.sources import Sources

log = logging.getLogger(__name__)


def report_failures(sources: Sources | None, judged: pa.Table) -> None:
    """Fail the sources of events with the reason `failed_by_rule`; raises StoreUnavailableError."""
    if sources is None or judged["reason"].null_count == len(judged):
        return
    mask = pc.equal(judged["reason"].cast(pa.string()), Reason.FAILED_BY_RULE.value)
    names = ["source_id", "message", "received_at"]
    rows = judged.select(names).filter(mask.fill_null(False)).to_pylist()
    last = {row["source_id"]: row for row in sorted(rows, key=lambda row: row["received_at"])}
    for source_id, row in last.items():
        at_ms = round(row["received_at"].timestamp() * 1000)
        if sources.fail(source_id, row["message"], at_ms=at_ms):
            log.warning("source %s has failed: %s", source_id, row["message"])
