"""What is not as it should be, as far as serving knows: its own health, and the ledger.

The asset checks know more (Dagster's UI shows them); rules and deliveries are not made here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dc_platform.contracts.tables import LEDGER
from dc_platform.lake.ledger_findings import reasons_of, unbalanced
from dc_platform.serving.engine import Engine
from dc_platform.serving.view import View

_LEDGER_SQL = (
    "select * from ops.ledger where missing <> 0 or gap <> 0 or in_flight <> 0"
    " or examples is not null"
)
_SHOWN = 20

_SAID = {
    (
        "ingestion",
        "unhealthy",
    ): "Kafka does not answer: events are not taken, and answers hold up to"
    " when it last did. See whether the broker runs: dcp status.",
    ("processing", "degraded"): "Landing is behind, or serving has not caught up with Kafka. See in"
    " Dagster whether the landing run is alive.",
    ("storage", "degraded"): "The lake's disk is nearly full. Free or add room.",
    (
        "storage",
        "unhealthy",
    ): "The lake's disk is full to 95 %: landing stops soon. Free or add room.",
}


def of_health(health: dict[str, Any]) -> list[dict[str, Any]]:
    """One alert for each component that is not healthy."""
    return [
        {
            "name": name,
            "severity": "CRITICAL" if component["status"] == "unhealthy" else "WARNING",
            "message": _SAID[name, component["status"]],
        }
        for name, component in health["components"].items()
        if component["status"] != "healthy"
    ]


class LedgerAlerts:
    """Broken promises by the newest ledger, read again when it has changed. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[str, tuple[int, list[dict[str, Any]]]] = {}

    def of(self, view: View, tenant_id: str) -> list[dict[str, Any]]:
        """One alert for each source and hour that does not balance, the worst first."""
        version = self._engine.snapshot(LEDGER, view).version
        known = self._known.get(tenant_id)
        if known is None or known[0] != version:
            known = self._known[tenant_id] = (version, self._read(view, tenant_id))
        return known[1]

    def _read(self, view: View, tenant_id: str) -> list[dict[str, Any]]:
        with self._engine.run_sql(_LEDGER_SQL, view, tenant_id=tenant_id) as found:
            rows = found.read_all()
        # What was in flight when the rows were made has mostly landed since; the next ledger tells.
        made = max(rows["processed_at"].to_pylist(), default=datetime.now(UTC))
        return [
            {
                "name": "ledger_balances",
                "severity": "CRITICAL",
                "message": f"{row['hour']:%Y-%m-%d %H:00} UTC: events are"
                f" {', '.join(reasons_of(row, made))}. `dcp audit` names them.",
                "sourceId": row["source_id"],
                "asOf": round(made.timestamp() * 1000),
            }
            for row in unbalanced(rows, made)[:_SHOWN]
        ]
