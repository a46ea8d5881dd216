"""dlt: a whole topic into a local Delta table, as Arrow tables, its fastest way.

Run by the Python of benchmarks/.venv. JSON is brought into columns by DuckDB, which was the fastest
parser of those measured; the consumer is librdkafka. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import dlt
import duckdb
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from dlt.destinations import filesystem

_CHUNK = 20_000
_TABLE_EVENTS = 200_000
_TYPES = (
    '{"eventId":"VARCHAR","sourceId":"VARCHAR","timestamp":"BIGINT","eventType":"VARCHAR",'
    '"payload":"JSON"}'
)
_SQL = f"""
    select e.eventId as event_id, e.sourceId as source_id,
           make_timestamptz(e.timestamp * 1000) as event_time, e.eventType as event_type,
           e.payload::varchar as payload
    from (select json_transform(line, '{_TYPES}') as e from chunk)
"""


def records(bootstrap: str, topic: str) -> Iterator[list[bytes]]:
    """The values of all records that Kafka has now, in lists."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-dlt",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": False,
            # Its defaults stall: 196,000 records/s with them, 991,000 with this.
            "fetch.queue.backoff.ms": 0,
            "queued.min.messages": 500_000,
        }
    )
    found = consumer.list_topics(topic).topics[topic].partitions
    left = {}
    for number in found:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number))
        if high > low:
            left[number] = high
    consumer.assign([TopicPartition(topic, number, 0) for number in left])
    while left:
        # It waits until it has as many as it is asked for: 1,000 blocks never are.
        messages = consumer.consume(50_000, timeout=0.02)
        for message in messages:
            if left.get(message.partition()) == message.offset() + 1:
                del left[message.partition()]
        yield [message.value() for message in messages]
    consumer.close()


def tables(bootstrap: str, topic: str, format_: str) -> Iterator[pa.Table]:
    """The events in columns."""
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("set TimeZone = 'UTC'")
    pending: list[pa.Table] = []
    for values in records(bootstrap, topic):
        pending += _columns(connection, values, format_)
        if sum(map(len, pending)) >= _TABLE_EVENTS:
            yield pa.concat_tables(pending)
            pending = []
    if pending:
        yield pa.concat_tables(pending)


def _columns(
    connection: duckdb.DuckDBPyConnection, values: list[bytes], format_: str
) -> list[pa.Table]:
    if format_ == "arrow":
        names = ["event_id", "source_id", "event_time", "event_type", "payload"]
        return [pa.ipc.open_stream(value).read_all().rename_columns(names) for value in values]
    lines = values if format_ == "json" else [x for v in values for x in v.split(b"\n")]
    parsed = []
    for start in range(0, len(lines), _CHUNK):
        chunk = pa.table({"line": pa.array(lines[start : start + _CHUNK], pa.string())})
        connection.register("chunk", chunk)
        parsed.append(connection.execute(_SQL).to_arrow_table())
    return parsed


def main() -> None:
    """Drain the topic into `--directory`/table/bench/events."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "topic", "format", "directory"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    directory = Path(given.directory)
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    begun = time.monotonic()
    pipeline = dlt.pipeline(
        "bench",
        pipelines_dir=str(directory / "pipelines"),
        destination=filesystem(bucket_url=(directory / "table").as_uri()),
        dataset_name="bench",
    )
    rows = dlt.resource(
        tables(given.bootstrap, given.topic, given.format),
        name="events",
        table_format="delta",
        write_disposition="append",
    )
    pipeline.run(rows).raise_on_failed_jobs()
    print(json.dumps({"seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main()
