"""One dbt project, two engines: on a real Trino gold has the rows that DuckDB made, bit by bit.

Trino makes the tables anew in the local lake, and merges hours in a catalog on a real S3 server, where
the benchmarks' environment has one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks import store_commits
from dc_platform.contracts.gold import DBT_TABLES
from dc_platform.errors import ConfigurationError
from dc_platform.gold.run import keep_gold
from dc_platform.gold.trino import Place, build_on_trino
from dc_platform.lake.store import Lake
from dc_platform_tests.gold.lakes import delete, land, new_lake, reject, rows
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.gold import columns, expected, gold
from dc_platform_tests.helpers.lake import silver_row
from dc_platform_tests.helpers.trino import SharedTrino, Tables

pytestmark = [pytest.mark.trino, pytest.mark.slow, pytest.mark.timeout(600)]

_MARTS = """\
connector.name=delta_lake
hive.metastore=file
hive.metastore.catalog.dir={uri}/marts
fs.native-s3.enabled=true
s3.endpoint={options[AWS_ENDPOINT_URL]}
s3.region=us-east-1
s3.path-style-access=true
s3.aws-access-key={options[AWS_ACCESS_KEY_ID]}
s3.aws-secret-key={options[AWS_SECRET_ACCESS_KEY]}
"""
_SAME = {"events_hourly": [], "sources_daily": [], "event_types_top": []}


class Scene(NamedTuple):
    """A lake, and a Trino over it."""

    lake: Lake
    trino: Tables
    cache: Path
    catalogs: list[str]

    def build(self, catalog: str, span: tuple[int, int] | None = None) -> None:
        """On Trino; every test holds."""
        place = Place(self.trino.url, catalog, "gold_trino")
        outcomes = build_on_trino(self.lake, self.cache, place, span)
        assert all(outcome.good for outcome in outcomes)
        assert sum(outcome.kind == "test" for outcome in outcomes) >= 12

    def differences(self, catalog: str) -> dict[str, list[list[object]]]:
        """Rows that only one of the two engines has."""
        found = {}
        for spec in DBT_TABLES:
            table = spec.name.split(".")[1]
            names = ", ".join(columns(spec))
            ours = f"SELECT {names} FROM lake.gold.{table}"
            theirs = f"SELECT {names} FROM {catalog}.gold_trino.{table}"
            only = [f"({a} EXCEPT ALL {b})" for a, b in ((ours, theirs), (theirs, ours))]
            found[table] = [row for sql in only for row in self.trino.query(sql)]
        return found


@pytest.fixture
def scene(tmp_path: Path, shared_trino: SharedTrino) -> Iterator[Scene]:
    lake = new_lake(tmp_path)
    with ExitStack() as stack:
        catalogs = ["lake"]
        if store_commits.WEED.is_file():
            uri, options = stack.enter_context(store_commits.seaweed(tmp_path / "weed"))
            shared_trino.catalog("marts", _MARTS.format(uri=uri, options=options))
            catalogs.append("marts")
        yield Scene(lake, shared_trino.show(lake.uri), tmp_path / "cache", catalogs)


def test_both_engines_make_the_same_rows(scene: Scene) -> None:
    chosen = random.Random(7)
    land(scene.lake, rows(chosen, 0, 1500, wild=True))
    land(scene.lake, [silver_row(n, event_type=f"type {n}") for n in range(5000, 5130)])
    reject(scene.lake, [NOW, NOW + 1, NOW + 100 * HOUR])
    reject(scene.lake, [NOW], source=None)
    keep_gold(scene.lake, scene.cache)
    assert gold(scene.lake) == expected(scene.lake)
    scene.trino.keep()
    for catalog in scene.catalogs:
        scene.build(catalog)
        assert scene.differences(catalog) == _SAME
    # Late events, deletions, hours and a day of which nothing is left.
    land(scene.lake, rows(chosen, 9000, 40))
    reject(scene.lake, [NOW - HOUR])
    delete(scene.lake, goes)
    keep_gold(scene.lake, scene.cache)
    assert gold(scene.lake) == expected(scene.lake)
    span = (NOW // HOUR - 31, NOW // HOUR + 31)
    with pytest.raises(ConfigurationError, match="only creates tables"):
        scene.build("lake", span)
    scene.build("lake")
    assert scene.differences("lake") == _SAME
    if "marts" in scene.catalogs:
        scene.build("marts", span)
        assert scene.differences("marts") == _SAME


def goes(row: dict[str, Any]) -> bool:
    """Every fifth row, and all of the last hours; the wild ones lie outside of what is merged."""
    hours = row["event_time"].timestamp() * 1000 / HOUR - NOW / HOUR
    return abs(hours) < 31 and (int(row["kafka_offset"]) % 5 == 0 or hours > 15)
