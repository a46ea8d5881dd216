"""A lake with gold, as silver goes on: its planned answers beside those of all events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa

from dc_platform.contracts.gold import GoldSpec
from dc_platform.contracts.metrics import DefinedMetric
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.gold.build import Built
from dc_platform.gold.build import build as real_build
from dc_platform.gold.pending import Pinned, Work
from dc_platform.gold.producers import Extras, Make
from dc_platform.gold.run import keep_gold, rebuild_hours
from dc_platform.lake.table import LakeTable
from dc_platform.registry.metrics import MetricChanges
from dc_platform.serving.answers import answer
from dc_platform.serving.chunks import Chunk
from dc_platform.serving.light import HeavyQueryError, Light
from dc_platform.serving.metrics import datapoints
from dc_platform.serving.query import Query
from dc_platform.serving.view import View
from dc_platform_tests.gold.plain import Counted, count
from dc_platform_tests.helpers.lake import silver_table
from dc_platform_tests.helpers.serving import MAKER, Served


class _Counted(Counted):
    """What dbt would give is counted; what functions give is made by them."""

    def produced(self, spec: GoldSpec, make: Make, work: Work) -> pa.Table:
        """The rows that a function makes."""
        return Built.produced(self, spec, make, work)


def build_without_dbt(pinned: Pinned, work: Work, directory: Path, cache: Path) -> Built:
    """In the place of `build`, whose `run_dbt` has to be nothing."""
    real_build(pinned, work, directory, cache)
    counted = count(pinned, work, directory, cache)
    return _Counted(directory, [], counted.made, work, counted.version)


class _Defined:
    """A registry with metrics, at version 1."""

    def __init__(self, metrics: Sequence[DefinedMetric]) -> None:
        self.metrics = list(metrics)

    def changed_since(self, version: int) -> MetricChanges:
        """All of them, or none."""
        return MetricChanges(1, [m for m in self.metrics if m.changed_at > version], [])


class Planned:
    """A served lake, and an engine that never asks gold and keeps nothing."""

    def __init__(
        self, directory: Path, metrics: Sequence[DefinedMetric] = (), **settings: Any
    ) -> None:
        self.served = Served(directory / "served", **settings)
        self.lake = self.served.lake
        self.lake.ensure(SILVER_EVENTS)
        self.light = Light(self.served.settings, self.lake)
        # How many queries were light.
        self.lights = 0
        self.plain = Served(
            directory / "plain", lake_uri=self.served.settings.lake, query_cache_mb=0
        )
        nothing = SimpleNamespace(of=lambda silver: None)
        self.plain.engine.coverage = lambda spec: nothing  # type: ignore[method-assign,assignment,return-value]
        self._extras = Extras(metrics=_Defined(metrics) if metrics else None)  # type: ignore[arg-type]
        self._cache = directory / "cache"

    def gold(self) -> None:
        """Build what is pending."""
        keep_gold(self.lake, self._cache, self._extras)

    def gold_by_hand(self, first: int, last: int) -> None:
        """Build some hours: what is covered stays as it is."""
        rebuild_hours(self.lake, self._cache, first, last, self._extras)

    def view(self, *tail: Sequence[dict[str, Any]], spill: str = "") -> View:
        """The newest silver, with chunks of the tail, the last on disk when `spill` names its file."""
        chunks = []
        for rows in tail:
            table = silver_table(rows)
            chunks.append(Chunk.of(table, MAKER.keys(table["source_id"], table["event_id"])))
        if spill:
            # Where both engines may read.
            directory = Path(self.lake.uri) / "spilled"
            directory.mkdir(exist_ok=True)
            chunks[-1] = chunks[-1].spill(directory, spill)
        return View(LakeTable(self.lake, SILVER_EVENTS).snapshot(), {}, tuple(chunks))

    def ask(self, view: View, tenant: str = "default", **query: Any) -> dict[str, Any]:
        """The planned answer."""
        return _answer(self.served, view, tenant, query)

    def agree(self, view: View, tenant: str = "default", **query: Any) -> set[str]:
        """Hold that the planned answer is the plain one, row for row; who gave it."""
        planned = self.ask(view, tenant, **query, explain=True)
        plain = _answer(self.plain, view, tenant, query)
        steps = planned.pop("plan")["statements"]
        for found in (planned, plain):
            found.pop("executionTime")
        assert planned == plain, (query, steps)
        self._light_agrees(view, tenant, query, plain)
        return {who for step in steps for who in step["answeredBy"]}

    def _light_agrees(
        self, view: View, tenant: str, query: dict[str, Any], plain: dict[str, Any]
    ) -> None:
        try:
            light = answer(self.light, view, Query.model_validate(query), tenant_id=tenant)
        except HeavyQueryError:
            return
        light.pop("executionTime")
        assert light == plain, query
        self.lights += 1

    def metrics_agree(self, view: View, metric: DefinedMetric, **asked: Any) -> set[str]:
        """The same of datapoints."""
        asked = {"from_us": None, "to_us": None, "seconds": 3600, "dimensions": (), **asked}
        planned = datapoints(self.served.engine, view, metric, explain=True, **asked)
        plain = datapoints(self.plain.engine, view, metric, **asked)
        who = planned.pop("plan")["answeredBy"]
        assert planned == plain, (metric, asked, who)
        return set(who)


def _answer(served: Served, view: View, tenant: str, query: dict[str, Any]) -> dict[str, Any]:
    return answer(served.engine, view, Query.model_validate(query), tenant_id=tenant)
