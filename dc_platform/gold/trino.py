"""The same models on Trino, into a schema of its own: for those whose warehouse Trino is.

dbt writes there itself, and reads silver at the pinned version. Each table is merged on its grain, then
the rows of the touched hours that this run did not write are deleted: a reader may see a row that is
gone for a moment longer, and never misses one. All of it at once replaces the tables.

Trino 476 commits to Delta tables on S3, GCS and Azure only; on a local disk it can create them. So in
the catalog `lake` of a local lake the tables are dropped and created, all of them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.errors import ConfigurationError
from dc_platform.gold.dbt import Outcome, run_dbt
from dc_platform.gold.pending import Pinned, date_of
from dc_platform.lake.store import Lake

# The catalog of the platform's tables (stack/trino.py).
LAKE = "lake"
# They stand in the statements as they are.
_MOST_HOURS = 24 * 366


class Place(NamedTuple):
    """A Trino, and where in it the tables are written. Its catalog `lake` has silver."""

    url: str
    catalog: str
    schema: str

    @property
    def merges(self) -> bool:
        """Whether tables can be changed there. The lake is local; what another catalog is, its owner
        has to know.
        """
        return self.catalog != LAKE


def build_on_trino(
    lake: Lake, cache: Path, place: Place, span: tuple[int, int] | None = None
) -> list[Outcome]:
    """Build all hours, or the epoch hours from the first to the second of `span`.

    Raises AuditError when a test does not hold; what it looked at is written then.
    """
    if span is not None and not place.merges:
        raise ConfigurationError(
            "on a local disk Trino only creates tables: leave --hours and --days out, or name a catalog"
            " on an object store by DCP_GOLD_TRINO_CATALOG"
        )
    pinned = Pinned(lake)
    variables: dict[str, object] = {
        "silver_version": pinned.followed[SILVER_EVENTS.name].version,
        "quarantine_version": pinned.followed[SILVER_QUARANTINE.name].version,
    }
    verb = ["build", "--full-refresh"]
    if span is not None:
        hours = range(span[0], span[1] + 1)
        if len(hours) > _MOST_HOURS:
            raise ConfigurationError("more than a year of hours: leave --hours and --days out")
        days = sorted({hour // 24 for hour in hours})
        variables |= {
            "hours": list(hours),
            "days": [date_of(day).isoformat() for day in days],
        }
        verb = ["build"]
    with tempfile.TemporaryDirectory(prefix="dcp-gold-") as directory:
        return run_dbt(
            [*verb, "--vars", json.dumps(variables)],
            target="trino",
            directory=Path(directory),
            cache=cache,
            environment=_environment(place),
        )


def _environment(place: Place) -> dict[str, str]:
    parts = urlsplit(place.url)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        raise ConfigurationError(f"{place.url} is no address of a Trino: write http://HOST:PORT")
    return {
        "DBT_TRINO_SCHEME": parts.scheme,
        "DBT_TRINO_HOST": parts.hostname,
        "DBT_TRINO_PORT": str(parts.port or (443 if parts.scheme == "https" else 80)),
        "DBT_TRINO_CATALOG": place.catalog,
        "DBT_TRINO_SCHEMA": place.schema,
        "DBT_TRINO_MERGES": "yes" if place.merges else "",
    }
