"""`python -m dc_platform.bench.query_gold LAKE CACHE`: what dbt makes of it, tested and published.

Sketches and metrics are left out: no question of the bench needs them, and 30 days at once, of
4,000,000 groups, take half an hour of Python.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dc_platform.contracts.spec import GoldSpec
from dc_platform.gold.producers import Extras, Make, Producers
from dc_platform.gold.run import keep_gold
from dc_platform.lake.store import Lake
from dc_platform.registry.metrics import MetricChanges


class _NoProducers(Producers):
    @property
    def makes(self) -> list[tuple[GoldSpec, Make]]:
        return []


class _NoExtras(Extras):
    def pinned(self) -> Producers:
        return _NoProducers(self.item_fields, MetricChanges(0, [], []))


def main() -> None:
    """Build and publish."""
    lake, cache = sys.argv[1:]
    report = keep_gold(Lake(lake), Path(cache), _NoExtras())
    print(json.dumps({"seconds": report.seconds, "rows": report.rows}))


if __name__ == "__main__":
    main()
