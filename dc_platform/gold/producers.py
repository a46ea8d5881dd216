"""The tables of gold that functions make, beside those that dbt builds, of the same hours.

What they need besides silver stands in the registry and in the settings: the definitions of metrics,
and the fields whose values are counted as items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa

from dc_platform.contracts.sketch_tables import METRICS_HOURLY, SKETCHES_HOURLY
from dc_platform.contracts.spec import GoldSpec
from dc_platform.gold.metrics_hourly import metrics_of
from dc_platform.gold.pending import Work
from dc_platform.gold.sketches_hourly import ITEM_FIELDS, sketches_of
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.metrics import MetricChanges, Metrics
from dc_platform.settings import Settings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Gets a connection to the scratch file, with the views `silver.events` and `silver.events_of_days`, and
# the work; gives the rows of the touched hours.
Make = Callable[[duckdb.DuckDBPyConnection, Work], pa.Table]


@dataclass(frozen=True)
class Extras:
    """What the further tables are made with. `metrics`: where definitions are, if anywhere."""

    item_fields: Sequence[str] = ITEM_FIELDS
    metrics: Metrics | None = None

    def pinned(self) -> Producers:
        """The further tables with the definitions that there are now."""
        if self.metrics is None:
            return Producers(self.item_fields, MetricChanges(0, [], []))
        return Producers(self.item_fields, self.metrics.changed_since(0))

    def differ_from(self, covered: int | None) -> bool:
        """Whether definitions changed since the version of the registry that is covered."""
        if self.metrics is None or covered is None:
            return False
        changes = self.metrics.changed_since(covered)
        return bool(changes.changed or changes.deleted)


@dataclass(frozen=True)
class Producers:
    """A function for each further table. `definitions` are all metrics, at a version."""

    item_fields: Sequence[str]
    definitions: MetricChanges

    @property
    def makes(self) -> list[tuple[GoldSpec, Make]]:
        """The tables and their functions; they stand in GOLD_TABLES, too."""
        return [(SKETCHES_HOURLY, self._sketches), (METRICS_HOURLY, self._metrics)]

    def _sketches(self, connection: duckdb.DuckDBPyConnection, work: Work) -> pa.Table:
        return sketches_of(
            connection,
            _hours(work),
            silver_version=_version(connection),
            item_fields=self.item_fields,
        )

    def _metrics(self, connection: duckdb.DuckDBPyConnection, work: Work) -> pa.Table:
        return metrics_of(
            connection,
            _hours(work),
            self.definitions.changed,
            silver_version=_version(connection),
        )


def extras_of(settings: Settings) -> Extras:
    """What a platform's settings and registry say."""
    migrate(settings.registry)
    return Extras(settings.sketch_item_fields, Metrics(Database(settings.registry)))


def _hours(work: Work) -> list[datetime]:
    return [_EPOCH + timedelta(hours=hour) for hour in work.hours]


def _version(connection: duckdb.DuckDBPyConnection) -> int:
    [(version,)] = connection.execute("select silver_version from run.pinned").fetchall()
    return int(version)
