"""What is wrong in rows of the ledger, and in which way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dc_platform.contracts.ops_tables import LEDGER

# So long after its hour (of a replay: after its acknowledgement) what was acknowledged may be on its
# way: freshness is some seconds, and a stack that was down is up again. What takes longer is lost
# without a trace (a topic's name nobody knows, a partition that Kafka emptied), or landing is so far
# behind that somebody has to look.
IN_FLIGHT = timedelta(hours=1)
_HOUR = timedelta(hours=1)
_FIGURES = [f.name for f in LEDGER.columns if pa.types.is_integer(f.type)]


def unbalanced(rows: pa.Table, now: datetime | None = None) -> list[dict[str, Any]]:
    """Rows with events that are missing, lost, there too often, or in flight for too long at `now`,
    the worst first.

    `missing` is what is left over, so one event that is lost and another that is there twice make
    zero: both are among the examples, the latter with a negative number.
    """
    before = (now or datetime.now(UTC)) - IN_FLIGHT
    late = pc.and_kleene(
        pc.less_equal(rows["hour"], pa.scalar(before - _HOUR, rows["hour"].type)),
        pc.less_equal(rows["in_flight_since"], pa.scalar(before, rows["hour"].type)),
    )
    stuck = pc.and_(pc.not_equal(rows["in_flight"], 0), late.fill_null(True))
    wrong = pc.or_(pc.not_equal(rows["missing"], 0), pc.not_equal(rows["gap"], 0))
    wrong = pc.or_(pc.or_(wrong, stuck), pc.is_valid(rows["examples"]))
    columns = [*_FIGURES, "source_id", "hour", "topic_id", "in_flight_since", "examples"]
    found = rows.filter(wrong).select(columns).to_pylist()
    return sorted(found, key=lambda row: -abs(row["missing"]) - row["gap"])


def reasons_of(row: dict[str, Any], now: datetime | None = None) -> list[str]:
    """In which ways a row of `unbalanced` is wrong."""
    since = max(row["hour"] + _HOUR, row["in_flight_since"] or row["hour"])
    late = (now or datetime.now(UTC)) - since >= IN_FLIGHT
    mixed = not row["missing"] and not row["gap"] and row["examples"]
    found = {
        "missing": row["missing"] > 0,
        "there too often": row["missing"] < 0,
        "some missing, as many there too often": mixed,
        "lost in Kafka": row["gap"],
        "in flight for more than an hour after its hour": row["in_flight"] and late,
    }
    return [reason for reason, holds in found.items() if holds]


def totals(rows: pa.Table) -> dict[str, int]:
    """Sums of all figures."""
    return {name: int(pc.sum(rows[name]).as_py() or 0) for name in _FIGURES}
