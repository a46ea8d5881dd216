"""Lakes for gold: rows that every trap is among, landed, come late, merged and deleted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dc_platform.contracts.tables import SILVER_EVENTS, SILVER_QUARANTINE
from dc_platform.lake.parquet import write_file
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform_tests.helpers.events import HOUR, NOW
from dc_platform_tests.helpers.lake import DAY, read_table, silver_row, silver_table, write_silver

# Numbers that engines write, round and overflow in ways of their own; and what is none.
VALUES = (
    *("1", "1.10", "-0", "-0.0", "0.1", "0.2", "0.3", "1e5", "2.5e-9", "5e-10", "-5e-10"),
    *("0.12345678949999999999", "1e17", "-1e17", "999999999.9999999", "123456789012.123456"),
    *("9007199254740993", "18446744073709551616", "1e18", "-1e18", "1e999", "-1e999", "1e-400"),
    *('"12"', '"NaN"', "null", "true", '{"a":1}', "[1]", '"1e5"'),
)
USERS = ('"u1"', '"u2"', '""', "7", "8", "1.5", "1.50", "null", "false", '{"id":1}', '"7"')
# Not JSON, not an object, no text, names that are there twice, hidden ones, what is in a string.
PAYLOADS = (
    *("{}", "[]", "3", "null", '"value"', "not json", "", None),
    *('{"value":1,"value":2}', '{"a":{"value":3,"userId":"x"}}', '{"\\u0076alue":4}'),
    *('{"t":"\\",\\"value\\":5","value":6}', '{"user_id":"é\\ud83d\\ude00","value":0}'),
)
# The first and the last hour that there may be.
FIRST, LAST = -62_135_596_800_000, 253_402_300_799_999


def payload(chosen: random.Random) -> str | None:
    """A payload, most of them with a value and a user."""
    if chosen.random() < 0.15:
        return chosen.choice(PAYLOADS)
    members = [f'"value":{chosen.choice(VALUES)}'] if chosen.random() < 0.8 else []
    members += [
        f'"{name}":{chosen.choice(USERS)}'
        for name in ("userId", "user_id")
        if chosen.random() < 0.6
    ]
    return "{" + ",".join(members) + "}"


def rows(chosen: random.Random, first: int, count: int, *, wild: bool = False) -> list[Any]:
    """Rows of silver over three days, some of sources and tenants that share a type."""
    made = []
    for number in range(first, first + count):
        at = NOW + chosen.randrange(-30 * HOUR, 30 * HOUR)
        if wild and chosen.random() < 0.05:
            at = chosen.choice((FIRST, LAST, -1, 0, FIRST + HOUR))
        made.append(
            silver_row(
                number,
                tenant_id=chosen.choice(("default", "default", "it's")),
                source_id=f"s{chosen.randrange(3)}",
                event_type=chosen.choice(("a", "b", "é", "T")),
                event_time=at * 1000,
                received_at=min(LAST, at + chosen.choice((0, HOUR, HOUR + 1, 5 * HOUR))) * 1000,
                payload=payload(chosen),
                sample_rate=chosen.choice((1.0, 1.0, 0.3, 0.1, 1 / 3)),
            )
        )
    return made


def land(lake: Lake, made: Sequence[Any]) -> None:
    """A commit of silver."""
    table = LakeTable(lake, SILVER_EVENTS)
    table.commit([write_silver(lake, made)], txns={}, exact=True)


def reject(lake: Lake, received_ms: Sequence[int], source: str | None = "s0") -> None:
    """A commit of quarantine."""
    lake.ensure(SILVER_QUARANTINE)
    blank = dict.fromkeys(SILVER_QUARANTINE.file_schema.names)
    made = [
        {**blank, "tenant_id": "default", "source_id": source, "received_at": at * 1000}
        for at in received_ms
    ]
    table = silver_table([]).from_pylist(made, schema=SILVER_QUARANTINE.file_schema)
    file = write_file(lake, SILVER_QUARANTINE, table, partition=DAY)
    LakeTable(lake, SILVER_QUARANTINE).commit([file], txns={}, exact=True)


def merge(lake: Lake) -> None:
    """All files of silver become one, as compaction does it."""
    table = LakeTable(lake, SILVER_EVENTS)
    paths = table.snapshot().actions["path"].to_pylist()
    file = write_silver(lake, _all(lake))
    assert table.rewrite(paths, file, metadata={"dcp.compaction": "{}"}) is not None


def delete(lake: Lake, gone: Callable[[dict[str, Any]], bool]) -> None:
    """Rows leave silver, as a deletion does it: its files are written anew without them."""
    table = LakeTable(lake, SILVER_EVENTS)
    paths = set(table.snapshot().actions["path"].to_pylist())
    left = [row for row in _all(lake) if not gone(row)]
    files = [write_silver(lake, left)] if left else []
    table.put_in_place(paths, files, metadata={"dcp.delete": "{}"})


def new_lake(directory: Path) -> Lake:
    """A lake with an empty silver."""
    lake = Lake(str(directory / "lake"))
    lake.ensure(SILVER_EVENTS)
    return lake


def _all(lake: Lake) -> list[dict[str, Any]]:
    names = SILVER_EVENTS.file_schema.names
    return [
        dict(zip(names, row, strict=True))
        for row in read_table(lake, SILVER_EVENTS, ", ".join(names))
    ]


def hour_of(at_ms: int) -> datetime:
    """The hour of a time in epoch milliseconds."""
    return datetime.fromtimestamp(at_ms // HOUR * 3600, UTC)
