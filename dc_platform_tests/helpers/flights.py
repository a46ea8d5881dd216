"""Flights as they arrive in life: some late, some twice, some spoiled, none in order.

The data of the demo, or a month of the data set that the demo's file is an extract of (see NOTICE).
What of it has to be in the tables is computed here from the source file, by Polars.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from dc_platform.demo.flights import FILE

_PACKAGE = "vega-datasets@3.2.1"
_MEMBER = "package/data/flights-3m.parquet"
_DAY_MS = 86_400_000
# Shares of the flights, and what the issue asks for.
TWICE, LATE, SPOILED = 0.05, 0.03, 0.02
_SLICES = 6
# Ways to spoil an event, and the reason that each is rejected for.
SPOILS = ("malformed_json", "missing_field", "wrong_type", "timestamp_in_future")


class Sending(NamedTuple):
    """Lines to be sent, slice by slice, and the flights that must be in the tables in the end."""

    slices: list[list[bytes]]
    accepted: pl.DataFrame
    rejected: dict[str, int]


def three_days() -> pl.DataFrame:
    """The flights of the demo: 48,626 of three days."""
    return _numbered(pl.read_parquet(FILE))


def january(directory: Path) -> pl.DataFrame:
    """A month: some 500,000 flights. Skips where npm cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is needed to fetch the month of flights: install Node.js")
    subprocess.run([npm, "pack", "--silent", _PACKAGE], cwd=directory, check=True, timeout=300)
    (archive,) = directory.glob("vega-datasets-*.tgz")
    with tarfile.open(archive) as members:
        found = members.extractfile(_MEMBER)
        assert found is not None
        flights = pl.read_parquet(found.read()).rename({"date": "departed"})
    return _numbered(flights.filter(pl.col("departed") < pl.datetime(2001, 2, 1)))


def _numbered(flights: pl.DataFrame) -> pl.DataFrame:
    """number, event_type and the columns of the file, in the order of departure."""
    return flights.sort("departed", maintain_order=True).select(
        number=pl.int_range(pl.len()),
        departed=pl.col("departed").dt.replace_time_zone("UTC"),
        event_type=pl.when(pl.col("delay") >= 15)
        .then(pl.lit("flight_delayed"))
        .otherwise(pl.lit("flight_on_time")),
        delay=pl.col("delay").cast(pl.Int64),
        distance=pl.col("distance").cast(pl.Int64),
        origin="origin",
        destination="destination",
    )


def sending(flights: pl.DataFrame, seed: int) -> Sending:
    """How the flights are sent: in slices of time, in random order within each."""
    rng = random.Random(seed)
    rows = flights.to_dicts()
    arrivals: list[tuple[float, bytes]] = []
    spoiled: dict[int, str] = {}
    for row in rows:
        at = row["departed"].timestamp() * 1000
        if rng.random() < LATE:
            at += rng.random() * 3 * _DAY_MS
        line = _line(row)
        if rng.random() < SPOILED:
            reason = SPOILS[row["number"] % len(SPOILS)]
            spoiled[row["number"]] = reason
            line = _spoil(row, reason)
        arrivals.append((at, line))
        if row["number"] not in spoiled and rng.random() < TWICE:
            arrivals.append((at + rng.random() * 3 * _DAY_MS, line))
    arrivals.sort(key=lambda arrival: arrival[0])
    size = len(arrivals) // _SLICES + 1
    slices = []
    for start in range(0, len(arrivals), size):
        lines = [line for _, line in arrivals[start : start + size]]
        rng.shuffle(lines)
        slices.append(lines)
    rejected = dict.fromkeys(SPOILS, 0)
    for reason in spoiled.values():
        rejected[reason] += 1
    accepted = flights.filter(~pl.col("number").is_in(list(spoiled)))
    return Sending(slices, accepted, rejected)


def payload(row: dict[str, Any]) -> dict[str, Any]:
    """The payload: `userId` and `value` are what gold counts and adds up."""
    return {
        "origin": row["origin"],
        "distance": row["distance"],
        "userId": f"{row['origin']}-{row['destination']}",
        "value": row["delay"],
    }


def _event(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "eventId": f"flight-{row['number']}",
        "timestamp": int(row["departed"].timestamp() * 1000),
        "eventType": row["event_type"],
        "payload": payload(row),
    }


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(_event(row), separators=(",", ":")).encode()


def _spoil(row: dict[str, Any], reason: str) -> bytes:
    event = _event(row)
    if reason == "malformed_json":
        return _line(row)[:-2] + b",]}"
    if reason == "missing_field":
        del event["eventType"]
    elif reason == "wrong_type":
        event["payload"] = "none"
    else:
        event["timestamp"] = 4_900_000_000_000
    return json.dumps(event, separators=(",", ":")).encode()


def expected_hours(accepted: pl.DataFrame) -> pl.DataFrame:
    """gold.events_hourly of one source, recomputed."""
    value = pl.col("delay")

    def quantile(percent: int) -> pl.Expr:
        # The smallest value that so many percent of the values do not exceed.
        return value.sort().get((pl.len() * percent + 99) // 100 - 1).cast(pl.Float64)

    return (
        accepted.with_columns(
            hour=pl.col("departed").dt.truncate("1h"),
            user=pl.concat_str("origin", "destination", separator="-"),
        )
        .group_by("hour", "event_type")
        .agg(
            event_count=pl.len().cast(pl.Int64),
            unique_users=pl.col("user").n_unique().cast(pl.Int64),
            value_count=pl.len().cast(pl.Int64),
            value_sum=value.sum().cast(pl.Float64),
            value_min=value.min().cast(pl.Float64),
            value_max=value.max().cast(pl.Float64),
            value_avg=value.sum().cast(pl.Float64) / pl.len().cast(pl.Float64),
            value_p50=quantile(50),
            value_p95=quantile(95),
            value_p99=quantile(99),
        )
        .sort("hour", "event_type")
    )
