"""Time travel: what had landed by a version or a time, and never again what was deleted since."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from dc_platform.contracts.ops_tables import TOMBSTONES
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.cleaning import remove_replaced
from dc_platform.lake.log_entries import committed_at
from dc_platform.lake.parquet import write_file
from dc_platform.lake.table import LakeTable
from dc_platform.registry.retention import Kind
from dc_platform.retention.conditions import of_person
from dc_platform.retention.run import RetentionRun
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.events import NOW, some_uuid
from dc_platform_tests.helpers.records import SOURCE, block, gateway_line
from dc_platform_tests.helpers.retention import stranger
from dc_platform_tests.helpers.serving import Served, view
from dc_platform_tests.helpers.serving_http import Door


class Scene(Door):
    """A lake whose versions are known: 0 to 2 events of each of `versions`."""

    def land(self, *numbers: int, user: str = "bob", tenant: str = "default") -> int:
        """Land events; gives the version."""
        lines = [
            gateway_line(
                b'{"eventId":"%s","eventType":"t","timestamp":%d,"payload":{"userId":"%s","n":%d}}'
                % (some_uuid(n).encode(), NOW + n, user.encode(), n)
            )
            for n in numbers
        ]
        self.served.view = view(self.served.lake, [block(lines, self.offset, tenant=tenant)])
        self.offset += 1
        self.tail.view = self.served.view
        return self.served.view.silver.version

    offset = 0

    def sql(self, sql: str, token: str | None = None, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return request(self.app, "POST", "/api/v1/sql", headers=headers, json={"sql": sql, **body})

    def count(self, sql: str = "select count(*) as n from events", **body: Any) -> int:
        answer = self.sql(sql, **body)
        assert answer.status_code == 200, answer.text
        return int(answer.json()[0]["n"])

    def queried(self, **body: Any) -> int:
        """The same over POST /query, which keeps its answers."""
        asked = {"aggregations": [{"function": "COUNT"}], **body}
        answer = request(self.app, "POST", "/api/v1/query", headers=self.headers, json=asked)
        assert answer.status_code == 200, answer.text
        [row] = answer.json()["results"]
        assert row["count"] == answer.json()["totalCount"]
        return int(row["count"])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    served = Served(tmp_path)
    served.view = view(served.lake, [])
    made = Scene(served)
    yield made
    made.database.close()


def at(version: int) -> str:
    return f"select count(*) as n from events at (version => {version})"


def test_versions_and_times_are_what_had_landed(scene: Scene) -> None:
    first = scene.land(1, 2)
    time.sleep(0.005)
    second = scene.land(3)
    lake = scene.served.lake
    when = committed_at(lake, SILVER_EVENTS, first)
    assert scene.count() == 3
    for asked in (first, str(first), when.isoformat(), int(when.timestamp() * 1000) + 1):
        assert scene.count(asOf=asked) == 2, asked
    assert scene.count(asOf=second) == scene.count(asOf=datetime.now(UTC).isoformat()) == 3
    assert scene.count(asOf=0) == 0
    assert scene.count(at(first)) == 2
    stamp = f"timestamp '{when.replace(tzinfo=None).isoformat()}'"
    assert scene.count(f"select count(*) as n from silver.events at (timestamp => {stamp})") == 2
    # What came since, in one query.
    new = f"""select (e.payload ->> 'n')::int as n from events e
        anti join Events p AT (VERSION => {first}) using (source_id, event_id)"""
    assert scene.sql(new).json() == [{"n": 3}]
    # The same over /query.
    assert scene.queried(asOf=first) == 2


def test_the_past_has_no_tail_and_the_present_beside_it_has(scene: Scene) -> None:
    first = scene.land(1)
    line = gateway_line(b'{"eventType":"t","payload":{}}')
    scene.tail.view = view(scene.served.lake, [], [[block([line], 9, partition=1)]])
    assert scene.count() == 2
    assert scene.count(at(first)) == 1
    both = f"""select (select count(*) from events) * 10
        + (select count(*) from events at (version => {first})) as n"""
    assert scene.count(both) == 21


def test_a_tenant_sees_its_own_past_only(scene: Scene) -> None:
    version = scene.land(1, 2)
    scene.land(3, tenant="other")
    assert scene.sql(at(version), scene.token_of("other")).json() == [{"n": 0}]
    assert scene.sql(at(version + 1), scene.token_of("other")).json() == [{"n": 1}]
    assert scene.count(asOf=version + 1) == 2


def test_what_a_person_deleted_stays_away_at_every_step(scene: Scene) -> None:
    version = scene.land(1, user="anna")
    scene.land(2)
    before = scene.land(3, user="anna")
    assert (scene.queried(), scene.queried(asOf=before)) == (3, 3)
    retention = scene.retention
    asked = retention.request(
        Kind.PERSON, "default", {"field": "userId", "value": "anna"}, who="me"
    )
    # Asked for, and not begun: it is hidden from the past at once.
    assert (scene.count(), scene.count(asOf=before)) == (3, 1)
    assert (scene.queried(), scene.queried(asOf=before)) == (3, 1)
    run = RetentionRun(scene.served.settings, retention)
    conditions = of_person("default", "userId", "anna")
    outcome = run.deletions.carry_out(asked, conditions, kept_predicate={}, value="anna")
    # The old files are still there, for readers of older versions; they show nothing of it.
    assert outcome.waits is not None
    assert "readers of older versions" in outcome.waits
    scene.tail.view = view(scene.served.lake, [])
    assert (scene.count(), scene.count(at(version)), scene.count(asOf=before)) == (1, 0, 1)
    # Without the request only the tombstones know.
    retention.finished(asked.deletion_id, {})
    assert (scene.count(at(version)), scene.count(asOf=before)) == (0, 1)
    assert (scene.queried(asOf=version), scene.queried(asOf=before)) == (0, 1)
    assert scene.sql(f"select * from typed.x at (version => {version})").status_code == 400


def test_what_is_older_than_a_floor_stays_away(scene: Scene) -> None:
    scene.served.view = view(scene.served.lake, [stranger(0, 1, days=40), stranger(1, 2, days=1)])
    scene.tail.view = scene.served.view
    version = scene.served.view.silver.version
    assert scene.count(asOf=version) == 2
    scene.retention.set_policy("other", "click", retention_days=1, archive_after_days=1)
    scene.retention.raise_floors()
    assert scene.count(asOf=version) == 2
    scene.retention.set_policy("default", "click", retention_days=30, archive_after_days=30)
    scene.retention.raise_floors()
    assert scene.count(asOf=version) == 1


def test_tombstones_of_others_hide_nothing(scene: Scene) -> None:
    version = scene.land(1)
    lake = scene.served.lake
    row = {
        "tenant_id": "other",
        "source_id": SOURCE,
        "event_id": some_uuid(1),
        "dedup_scope": 1,
        "cause": "x",
        "deleted_at": datetime.now(UTC),
    }
    rows = pa.Table.from_pylist([row], schema=TOMBSTONES.columns)
    lake.ensure(TOMBSTONES)
    file = write_file(lake, TOMBSTONES, rows, partition=None)
    LakeTable(lake, TOMBSTONES).commit([file], txns={}, exact=True)
    assert scene.count(asOf=version) == 1


def test_the_last_moment_is_one(scene: Scene) -> None:
    scene.land(1)
    assert scene.count(asOf="9999-12-31T23:59:59.999999") == 1
    assert "as of version" in scene.sql("select 1 from events", asOf="0001-01-01").json()["detail"]


def test_what_is_gone_says_how_far_back_one_can_go(scene: Scene) -> None:
    old = scene.land(1)
    scene.land(2)
    lake = scene.served.lake
    table = LakeTable(lake, SILVER_EVENTS)
    [gone] = LakeTable(lake, SILVER_EVENTS, old).snapshot().actions["path"].to_pylist()
    table.put_in_place([gone], [], metadata={})
    scene.tail.view = view(lake, [])
    assert scene.count(asOf=old + 1) == 2
    remove_replaced(lake, SILVER_EVENTS)
    newest = table.version
    for asked in (old, 10**9):
        answer = scene.sql("select 1 from events", asOf=asked)
        assert answer.status_code == 400
        assert f"can be asked as of version {newest} (" in answer.json()["detail"]
        assert "DCP_REMOVED_FILES_MINUTES" in answer.json()["detail"]
    answer = scene.sql("select 1 from events", asOf="2001-01-01T00:00:00Z")
    assert "as of version" in answer.json()["detail"]
    assert scene.count(asOf=newest) == 1


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        (
            "select * from bronze.events at (version => 1)",
            "bronze.events can be asked as it is now",
        ),
        ("select * from gold.events_hourly at (version => 1)", "time travel is for events"),
        ("with a as (select 1) select * from a at (version => 1)", "a can be asked as it is now"),
        ("select * from events at (version => 1 + 1)", "AT takes a constant"),
        ("select * from events at (version => (select 1))", "AT takes a constant"),
        ("select * from events at (version => getenv('HOME'))", "AT takes a constant"),
        ("select * from events at (version => ?)", "AT takes a constant"),
        ("select * from events at (version => '1; drop')", "A version is a whole number"),
        ("select * from events at (version => -1)", "A version is a whole number"),
        ("select * from events at (timestamp => 'yesterday')", "asOf: expected epoch"),
        ('select * from "/etc/passwd" at (version => 1)', "There is no table"),
    ],
)
def test_what_cannot_be_asked_is_named(scene: Scene, sql: str, words: str) -> None:
    answer = scene.sql(sql)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    for asked, reason in (
        (-1, "whole number"),
        ("soon", "asOf: expected"),
        (10**17, "years 1 to"),
        ("0001-01-01T00:00:00+14:00", "years 1 to"),
        ("9999-12-31T23:59:59-14:00", "years 1 to"),
    ):
        assert reason in scene.sql("select 1 from events", asOf=asked).json()["detail"]
    assert "as it is now" in scene.sql("select 1 from ops.acks", asOf=0).json()["detail"]
