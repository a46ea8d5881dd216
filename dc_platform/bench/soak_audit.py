"""After a soak: is everything there that was sent, each once?"""

from __future__ import annotations

from datetime import date
from typing import Any, Protocol

from dc_platform.bench.measure import BenchFailedError
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake import audit, audit_identities
from dc_platform.lake.scratch import scratch
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable, table_sql


class Sent(Protocol):
    """What a producer counted."""

    events: int
    unique: int
    rejected: int


def audit_soak(uri: str, sent: Sent, *, since: date) -> dict[str, Any]:
    """Compare the tables with what was sent; raises BenchFailedError when a row is lost or doubled."""
    lake = Lake(uri)
    identities = "source_id, event_id"
    addresses = "kafka_partition, kafka_offset, kafka_index"
    found = {
        "bronze": _count(lake, addresses, BRONZE_EVENTS.name),
        "silver": _count(lake, identities, SILVER_EVENTS.name),
        "quarantine": _count(lake, "quarantine_id", SILVER_QUARANTINE.name),
    }
    expected = {"bronze": sent.events, "silver": sent.unique, "quarantine": sent.rejected}
    lost = sum(max(0, expected[name] - different) for name, (_, different) in found.items())
    doubled = sum(rows - different for rows, different in found.values())
    broken = [
        finding.examples
        for finding in (
            audit.offset_gaps(lake),
            audit_identities.repeated_identities(lake, since),
            audit_identities.reused_identities(lake, since),
            audit.lost_events(lake, since),
        )
        if finding.number
    ]
    if lost or doubled or broken or any(found[n] != (e, e) for n, e in expected.items()):
        raise BenchFailedError(f"sent {expected}, found (rows, different) {found}; {broken}")
    return {"events": sent.events, "lost": lost, "doubled": doubled}


_SPECS = {spec.name: spec for spec in (BRONZE_EVENTS, SILVER_EVENTS, SILVER_QUARANTINE)}


def _count(lake: Lake, columns: str, name: str) -> tuple[int, int]:
    """(rows, different ones)."""
    table = table_sql(_SPECS[name], LakeTable(lake, _SPECS[name]).snapshot())
    with scratch() as connection:
        [row] = connection.execute(
            f"select count(*), count(distinct ({columns})) from ({table})"
        ).fetchall()
    return int(row[0]), int(row[1])
