"""What silver has of valid events stays, whatever has changed since they landed: the topic, the
settings, the registered sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from dc_platform.broker.records import Record, TopicInfo
from dc_platform.contracts.tables import BRONZE_EVENTS, SILVER_EVENTS
from dc_platform.decode.columns import AnySource, KnownSources
from dc_platform.decode.decoder import Decoder
from dc_platform.decode.strangers import Policy
from dc_platform.errors import FatalError
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.landing.backfill import backfill_silver
from dc_platform.landing.batch import Batch, Range
from dc_platform.landing.pieces import bronze_rows
from dc_platform.landing.rebuild import judged_from_bronze
from dc_platform.points import Point
from dc_platform_tests.helpers.events import HOUR, NOW, some_uuid
from dc_platform_tests.helpers.lake import read_table, silver_table
from dc_platform_tests.helpers.landing import (
    CLOCK,
    INFO,
    CrashError,
    committer,
    crash_at,
    lines,
)
from dc_platform_tests.helpers.records import SOURCE, Registered, block, strange

DAY = CLOCK.date()
_AFTER_BRONZE = crash_at(Point.AFTER_BRONZE)
OLDER = INFO._replace(topic_id="00000000-0000-0000-0000-000000000009")


def judged_of(
    info: TopicInfo,
    records: Sequence[Record],
    sources: KnownSources | None = None,
    policy: Policy | None = None,
) -> Batch:
    judged = Decoder(info.topic_id, sources or AnySource(), policy).decode(records)
    ends = {r.partition: r.offset + 1 for r in records}
    starts = {r.partition: r.offset for r in reversed(records)}
    return Batch(judged, {p: Range(starts[p], end) for p, end in ends.items()}, 0)


def land(lake: Lake, info: TopicInfo, *records: Record, **more: Any) -> None:
    committer(lake, info=info, **more).land(judged_of(info, records))


def stranger(number: int, offset: int, timestamp: int = NOW) -> Record:
    event = (
        f'{{"eventId":"{some_uuid(number)}","sourceId":"{SOURCE}","eventType":"t",'
        f'"timestamp":{timestamp},"payload":{{}}}}'
    )
    return strange(event.encode(), offset)


def nameless(offset: int) -> Record:
    """An event whose identity is its address, so also its topic."""
    return strange(b'{"sourceId":"%s","eventType":"t","payload":{}}' % SOURCE.encode(), offset)


def content(lake: Lake) -> list[tuple[Any, ...]]:
    return sorted(read_table(lake, SILVER_EVENTS), key=repr)


def damage(lake: Lake, event_id: str) -> None:
    """Silver of the day loses an event."""
    names = SILVER_EVENTS.file_schema.names
    rows = [
        dict(zip(names, row, strict=True))
        for row in read_table(lake, SILVER_EVENTS, ", ".join(names))
    ]
    kept = silver_table([row for row in rows if row["event_id"] != event_id])
    file = write_file(lake, SILVER_EVENTS, kept, partition=DAY)
    LakeTable(lake, SILVER_EVENTS).replace(DAY, [file], metadata={})


# --- the topic was deleted and created again ---


def test_events_of_an_older_topic_stay_as_they_are(lake: Lake) -> None:
    """The two topics have the same offsets, and one id twice."""
    land(lake, OLDER, block(lines(1, 2), 0), nameless(1), strange(b"nonsense", 2))
    land(lake, INFO, block(lines(2, 3), 0), nameless(1))
    before = content(lake)
    assert len(before) == 5
    done = backfill_silver(lake, DAY)
    assert (done.added, done.removed, done.version) == (0, 0, None)
    assert content(lake) == before


def test_what_silver_lost_of_an_older_topic_comes_back(lake: Lake) -> None:
    land(lake, OLDER, block(lines(1, 2), 0))
    land(lake, INFO, block(lines(3), 0))
    before = content(lake)
    damage(lake, some_uuid(1))
    done = backfill_silver(lake, DAY)
    assert (done.before, done.after, done.added, done.removed) == (2, 3, 1, 0)
    assert [row[:2] for row in content(lake)] == [row[:2] for row in before]


def test_what_never_landed_of_an_older_topic_stays_out(lake: Lake) -> None:
    """Bronze was ahead when the topic was deleted; silver's border of that topic says how far."""
    land(lake, OLDER, block(lines(1), 0))
    run = committer(lake, info=OLDER, begin=False, partitions=(0,), reached=_AFTER_BRONZE)
    with pytest.raises(CrashError):
        run.land(judged_of(OLDER, [block(lines(2), 1)]))
    land(lake, INFO, block(lines(3), 0))
    assert backfill_silver(lake, DAY).version is None
    assert len(content(lake)) == 2


def test_a_topic_of_which_silver_never_heard_stays_out(lake: Lake) -> None:
    """Its first run crashed between bronze and silver: landing will bring it, not a backfill."""
    with pytest.raises(CrashError):
        land(lake, INFO, block(lines(1), 0), reached=_AFTER_BRONZE)
    assert backfill_silver(lake, DAY).version is None
    land(lake, INFO, block(lines(1), 0))
    assert len(content(lake)) == 1


# --- the settings and the registered sources changed ---


def test_events_that_today_would_be_in_the_future_stay(lake: Lake) -> None:
    records = [stranger(1, 0, NOW + 9 * HOUR), stranger(2, 1)]
    generous = judged_of(INFO, records, policy=Policy(future_limit_ms=10 * HOUR))
    committer(lake).land(generous)
    assert len(content(lake)) == 2
    version = LakeTable(lake, SILVER_EVENTS).version
    done = backfill_silver(lake, DAY)
    assert (done.added, done.removed, done.version) == (0, 0, None)
    assert LakeTable(lake, SILVER_EVENTS).version == version


def test_events_that_today_would_be_too_large_stay(lake: Lake) -> None:
    large = strange(
        b'{"sourceId":"s","eventType":"t","payload":{"a":"%s"}}' % (b"x" * (2 << 20)), 0
    )
    committer(lake).land(judged_of(INFO, [large], policy=Policy(max_event_bytes=4 << 20)))
    assert len(content(lake)) == 1
    assert backfill_silver(lake, DAY).version is None


def test_the_tenant_is_the_one_of_the_landing(lake: Lake) -> None:
    acme = Registered({SOURCE: ("acme", 0, None)})
    committer(lake).land(judged_of(INFO, [stranger(1, 0), nameless(1)], acme))
    assert read_table(lake, SILVER_EVENTS, "tenant_id") == [("acme",), ("acme",)]
    assert backfill_silver(lake, DAY).version is None


def test_what_was_rejected_stays_rejected(lake: Lake) -> None:
    """To judge rejects again is a replay of the quarantine, not a backfill."""
    committer(lake).land(judged_of(INFO, [stranger(1, 0), nameless(1)], Registered({})))
    assert backfill_silver(lake, DAY).version is None
    assert content(lake) == []
    rows = pa.concat_tables(bronze_rows(LakeTable(lake, BRONZE_EVENTS), "true"))
    assert judged_from_bronze(rows)["reason"].to_pylist() == ["unknown_source"] * 2


def test_a_valid_event_that_cannot_be_read_is_an_error_not_a_loss(lake: Lake) -> None:
    committer(lake).land(judged_of(INFO, [block(lines(1, 2), 0), stranger(3, 1)]))
    before = content(lake)
    rows = pa.concat_tables(bronze_rows(LakeTable(lake, BRONZE_EVENTS), "true"))
    raws = [b"nonsense" if i == 1 else raw for i, raw in enumerate(rows["raw"].to_pylist())]
    at = rows.schema.get_field_index("raw")
    broken = rows.set_column(at, "raw", [raws])
    table = LakeTable(lake, BRONZE_EVENTS)
    table.replace(DAY, [write_file(lake, BRONZE_EVENTS, broken, partition=DAY)], metadata={})
    with pytest.raises(FatalError, match=rf"{INFO.topic_id}, partition 0, offset 0, index 1"):
        backfill_silver(lake, DAY)
    assert content(lake) == before


def test_an_event_of_the_day_before_in_another_topic_is_known(lake: Lake) -> None:
    land(lake, OLDER, block(lines(1), 0))
    land(lake, INFO, block(lines(1, 2), 0), clock=lambda: CLOCK + timedelta(days=1))
    for day in (DAY, DAY + timedelta(days=1)):
        assert backfill_silver(lake, day).version is None
    assert len(content(lake)) == 2
