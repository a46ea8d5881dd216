"""What queries of compacted hours skip, and what Bloom filters on event_id bring and cost.

    .venv/bin/python -m benchmarks.skipping [--hours 6] [--rows 1000000]

Hours of silver are written as compaction writes them (in its order, by its options), with and without
the filters, and asked with one thread of DuckDB. A share is of row groups that the bounds in the files
rule out. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.parquet import ROW_GROUP_ROWS, needle_options, writer_options

_FIRST_HOUR = 486_111  # 2025-06-15
_REPEATS = 5
_SOURCES = 200
# Several sources, types and users in one hour; times run through it.
_ROWS = """
    select 'default' as tenant_id,
        printf('00000000-0000-0000-0000-0000be7c%04x',
            (hash(i * 31 + $hour) % $sources)::int) as source_id,
        uuid()::varchar as event_id, null::varchar as client_event_id,
        ['page_view', 'click', 'purchase', 'search', 'signup'][(1 + hash(i) % 5)::int] as event_type,
        make_timestamptz(us) as event_time, make_timestamptz(us) as received_at,
        make_timestamptz(us + 1000000) as processed_at,
        printf('{"userId":"user-%06d","page":"/products/%04d","session":"%016x","ok":true}',
            (hash(i * 7 + $hour) % 200000)::int, i % 5000, i * 7919) as payload,
        null::map(varchar, varchar) as tags, '1' as schema_version, $hour::int as dedup_scope,
        1.0::double as sample_rate, 't' as topic_id, (i % 4)::int as kafka_partition,
        i as kafka_offset, 0::int as kafka_index
    from (select range as i, $hour * 3600000000 + range * 3600000000 // $rows as us from range($rows))
    order by source_id, event_time
"""


def main() -> None:
    """Write, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=int, default=6)
    parser.add_argument("--rows", type=int, default=1_000_000)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dcp-skipping-") as folder, duckdb.connect() as asked:
        asked.execute("set threads = 1; set TimeZone = 'UTC'")
        figures = _measure(Path(folder), asked, chosen.hours, chosen.rows)
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(json.dumps(figures))


def _measure(
    folder: Path, asked: duckdb.DuckDBPyConnection, hours: int, rows: int
) -> dict[str, Any]:
    plain, needles = writer_options(SILVER_EVENTS), needle_options(SILVER_EVENTS, rows)
    kinds = {"plain": plain, "bloom": {**plain, **needles}}
    files: dict[str, list[Path]] = {kind: [] for kind in kinds}
    seconds = dict.fromkeys(kinds, 0.0)
    wanted: dict[str, Any] = {}
    for hour in range(hours):
        table = _hour(asked, _FIRST_HOUR + hour, rows)
        if hour == hours // 2:
            wanted = table.slice(rows // 2, 1).to_pylist()[0]
        for kind, options in kinds.items():
            path = folder / f"{kind}-{hour}.parquet"
            begun = time.process_time()
            pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, **options)
            seconds[kind] += time.process_time() - begun
            files[kind].append(path)
    figures: dict[str, Any] = {"rows": hours * rows, "files": hours}
    for kind, paths in files.items():
        figures[f"{kind}_mb"] = round(sum(path.stat().st_size for path in paths) / 1e6, 1)
        figures[f"{kind}_write_cpu_seconds"] = round(seconds[kind], 2)
        figures |= _needles(asked, kind, paths, wanted)
    for column in ("source_id", "event_time", "event_type", "event_id"):
        figures[f"skipped_by_{column}"] = _skipped(files["plain"], column, wanted[column])
    return figures


def _hour(asked: duckdb.DuckDBPyConnection, hour: int, rows: int) -> pa.Table:
    values = {"hour": hour, "rows": rows, "sources": _SOURCES}
    return asked.execute(_ROWS, values).to_arrow_table().cast(SILVER_EVENTS.file_schema)


def _needles(
    asked: duckdb.DuckDBPyConnection, kind: str, paths: list[Path], wanted: dict[str, Any]
) -> dict[str, float]:
    """Median milliseconds of queries for one id."""
    rows = f"read_parquet({[str(path) for path in paths]})"
    conditions = {
        "id": f"event_id = '{wanted['event_id']}'",
        "missing_id": f"event_id = '{uuid.uuid4()}'",
        "id_of_source": f"event_id = '{wanted['event_id']}' and source_id = '{wanted['source_id']}'",
    }
    found = {}
    for name, condition in conditions.items():
        taken = []
        for _ in range(_REPEATS):
            begun = time.perf_counter()
            asked.execute(f"select payload from {rows} where {condition}").fetchall()
            taken.append((time.perf_counter() - begun) * 1000)
        found[f"{kind}_{name}_p50_ms"] = round(statistics.median(taken), 1)
    return found


def _skipped(paths: list[Path], column: str, value: Any) -> float:
    """The share of row groups whose bounds rule the value out; 0 without bounds."""
    groups = skipped = 0
    for path in paths:
        footer = pq.read_metadata(path)
        place = next(i for i in range(footer.num_columns) if footer.schema.column(i).path == column)
        for number in range(footer.num_row_groups):
            bounds = footer.row_group(number).column(place).statistics
            groups += 1
            if bounds is not None and bounds.has_min_max:
                skipped += not bounds.min <= value <= bounds.max
    return round(skipped / groups, 3)


if __name__ == "__main__":
    main()
