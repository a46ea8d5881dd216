"""The dry run: what the next run would delete and move, by table and tier, and what that costs a month.

It looks with the same conditions as the run, at the floors that the policies make of now, and those
that are in force anyway. `bytes` of rows that go are their share of their files'.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dc_platform.contracts.floors import Floor
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.registry.retention import Policy
from dc_platform.retention.conditions import AGED, below_floors
from dc_platform.retention.erase import Stubs, matches
from dc_platform.retention.tiers import Borders, Tier, bytes_by_tier, moves, tier_of
from dc_platform.settings import Settings

_GB = 1e9
DELETE = "delete"


@dataclass(frozen=True)
class Planned:
    """What would become of rows of a table that lie in a tier. `action`: delete, warm or cold. Dollars
    are per month, before and after; of what moves, as if it kept its size.
    """

    table: str
    tier: str
    action: str
    rows: int
    files: int
    bytes: int
    dollars_before: float
    dollars_after: float


def plan(
    lake: Lake,
    floors: Sequence[Floor],
    stubs: Stubs,
    borders: Borders,
    prices: Mapping[Tier, float],
    now: datetime,
) -> list[Planned]:
    """All of it, by table, tier and action."""
    sums: defaultdict[tuple[str, Tier, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    conditions = below_floors(floors)
    for aged in AGED:
        if not lake.exists(aged.spec):
            continue
        table = LakeTable(lake, aged.spec)
        for match in matches(table, conditions, stubs):
            if match.gone:
                key = aged.spec.name, tier_of(match.path), DELETE
                _add(sums[key], match.gone, 1, match.share)
        for move in moves(table, aged, borders, now):
            to_cold = move.cold_rows
            for file in move.files:
                target = Tier.COLD if to_cold else Tier.WARM
                _add(sums[aged.spec.name, file.tier, target.value], file.rows, 1, file.size)
    return [
        Planned(
            name,
            tier.value,
            action,
            rows,
            files,
            size,
            _dollars(size, prices[tier]),
            0.0 if action == DELETE else _dollars(size, prices[Tier(action)]),
        )
        for (name, tier, action), (rows, files, size) in sorted(sums.items())
    ]


def standing(lake: Lake, prices: Mapping[Tier, float]) -> list[dict[str, Any]]:
    """What lies in each tier now, and what it costs a month."""
    return [
        row | {"dollars": _dollars(row["bytes"], prices[Tier(row["tier"])])}
        for row in bytes_by_tier(lake)
    ]


def prices_of(settings: Settings) -> dict[Tier, float]:
    """Dollars per GB and month."""
    return {
        Tier.HOT: settings.tier_hot_price,
        Tier.WARM: settings.tier_warm_price,
        Tier.COLD: settings.tier_cold_price,
    }


def with_policy(policies: Sequence[Policy], one: Policy) -> list[Policy]:
    """The policies as if one more had been set."""
    key = one.tenant_id, one.data_type
    return [*(p for p in policies if (p.tenant_id, p.data_type) != key), one]


def _add(sums: list[int], *figures: int) -> None:
    for number, figure in enumerate(figures):
        sums[number] += figure


def _dollars(size: int, price: float) -> float:
    return round(size / _GB * price, 6)
