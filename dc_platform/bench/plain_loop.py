"""The measure of landing: the plainest fast loop, as anyone would write it (blueprint, decision 2).

One consumer, DuckDB (or Arrow) to columns, one Delta table, a second thread that writes. It checks
nothing, deduplicates nothing, keeps no raw bytes and no offsets. Run as a module it prints its
figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time

import duckdb
import pyarrow as pa
from deltalake import WriterProperties, write_deltalake

from dc_platform.broker.client import describe_topic
from dc_platform.broker.reader import reader_for
from dc_platform.broker.records import Records

_CHUNK = 20_000
_BATCH = 200_000
_TYPES = (
    '{"eventId":"VARCHAR","sourceId":"VARCHAR","timestamp":"BIGINT","eventType":"VARCHAR",'
    '"payload":"JSON"}'
)
_SQL = f"""
    select e.eventId, e.sourceId, make_timestamptz(e.timestamp * 1000) as event_time, e.eventType,
           e.payload::varchar as payload
    from (select json_transform(line, '{_TYPES}') as e from chunk)
"""


class _Writer:
    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._queue: queue.Queue[pa.Table | None] = queue.Queue(maxsize=2)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.rows = 0
        self._properties = WriterProperties(compression="ZSTD", compression_level=1)

    def put(self, table: pa.Table) -> None:
        self._queue.put(table)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (table := self._queue.get()) is not None:
            write_deltalake(self._uri, table, mode="append", writer_properties=self._properties)
            self.rows += len(table)


def drain(bootstrap: str, topic: str, uri: str, format_: str) -> tuple[int, float]:
    """(events, seconds) of landing a whole topic."""
    info = describe_topic(bootstrap, topic)
    assert info is not None
    reader = reader_for(bootstrap, info)
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("set TimeZone = 'UTC'")
    begun = time.monotonic()
    reader.assign(dict.fromkeys(range(info.partitions), 0))
    ends = reader.end_offsets()
    positions = dict.fromkeys(ends, 0)
    writer = _Writer(uri)
    pending: list[pa.Table] = []
    rows = 0
    while any(positions[p] < end for p, end in ends.items()):
        poll = reader.poll(500)
        positions.update(poll.next_offsets)
        for table in _tables(connection, Records.of(poll.records).values, format_):
            pending.append(table)
            rows += len(table)
        if rows >= _BATCH:
            writer.put(pa.concat_tables(pending))
            pending, rows = [], 0
    if pending:
        writer.put(pa.concat_tables(pending))
    writer.close()
    return writer.rows, time.monotonic() - begun


def _tables(
    connection: duckdb.DuckDBPyConnection, values: list[bytes], format_: str
) -> list[pa.Table]:
    if format_ == "arrow":
        return [pa.ipc.open_stream(value).read_all() for value in values]
    lines = values if format_ == "json" else [x for v in values for x in v.split(b"\n")]
    tables = []
    for start in range(0, len(lines), _CHUNK):
        chunk = pa.table({"line": pa.array(lines[start : start + _CHUNK], pa.string())})
        connection.register("chunk", chunk)
        tables.append(connection.execute(_SQL).to_arrow_table())
    return tables


def main() -> None:
    """Drain a topic and print the figures."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "topic", "uri", "format"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    events, seconds = drain(given.bootstrap, given.topic, given.uri, given.format)
    print(json.dumps({"events": events, "seconds": round(seconds, 3)}))


if __name__ == "__main__":
    main()
