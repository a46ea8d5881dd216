"""What is not as it should be, as far as serving knows: its own health, and the ledger.

The asset checks know more (Dagster's UI shows them); rules and deliveries are not made here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

from dc_platform.contracts.ops_tables import LEDGER
from dc_platform.lake.ledger_findings import reasons_of, unbalanced
from dc_platform.serving.engine import Engine
from dc_platform.serving.view import View

_AS_OF_SQL = "select max(processed_at) as made from ops.ledger"
_LEDGER_SQL = (
    "select * from ops.ledger where missing <> 0 or gap <> 0 or in_flight <> 0"
    " or examples is not null"
)
_SHOWN = 20

_SAID = {
    "ingestion": {
        "unhealthy": "Kafka does not answer: events are not taken, and answers hold up to when it last"
        " did. See whether the broker runs: dcp status.",
    },
    "processing": {
        "degraded": "Landing is behind, or serving has not caught up with Kafka. See in Dagster whether"
        " the landing run is alive.",
    },
    "storage": {
        "degraded": "The lake's disk is nearly full. Free or add room.",
        "unhealthy": "The lake's disk is full to 95 %: landing stops soon. Free or add room.",
    },
}


def of_health(health: dict[str, Any]) -> list[dict[str, Any]]:
    """One alert for each component that is not healthy."""
    return [
        {
            "name": name,
            "severity": "CRITICAL" if component["status"] == "unhealthy" else "WARNING",
            "message": _SAID[name][component["status"]],
        }
        for name, component in health["components"].items()
        if component["status"] != "healthy"
    ]


class LedgerState(NamedTuple):
    """What the newest ledger says, and when it was made (epoch milliseconds; None: never)."""

    made_ms: int | None
    alerts: list[dict[str, Any]]


class Ledger:
    """Broken promises by the newest ledger, read again when it has changed. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, tuple[int, LedgerState]] = {}

    def of(self, view: View, tenant_id: str) -> LedgerState:
        """One alert for each source and hour that does not balance, the worst first."""
        version = self._engine.snapshot(LEDGER, view).version
        known = self._known.get(tenant_id)
        if known is None or known[0] != version:
            known = self._known[tenant_id] = (version, self._read(view, tenant_id))
        return known[1]

    def _read(self, view: View, tenant_id: str) -> LedgerState:
        made = self._rows(_AS_OF_SQL, view, tenant_id)["made"][0].as_py()
        if made is None:
            return LedgerState(None, [])
        # What was in flight when the rows were made has mostly landed since; the next ledger tells.
        wrong = unbalanced(self._rows(_LEDGER_SQL, view, tenant_id), made)
        alerts = [
            {
                "name": "ledger_balances",
                "severity": "CRITICAL",
                "message": f"{row['hour']:%Y-%m-%d %H:00} UTC: events are"
                f" {', '.join(reasons_of(row, made))}. `dcp audit` names them.",
                "sourceId": row["source_id"],
            }
            for row in wrong[:_SHOWN]
        ]
        return LedgerState(round(made.timestamp() * 1000), alerts)

    def _rows(self, sql: str, view: View, tenant_id: str) -> pa.Table:
        return self._engine.run_named(sql, view, tenant_id=tenant_id)
