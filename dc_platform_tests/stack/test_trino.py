"""Trino: what is unpacked, and that it reads the tables and the topic."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from dc_platform.broker.client import RecordWriter, ensure_topic
from dc_platform.contracts.tables import SILVER_EVENTS, TABLES
from dc_platform.errors import FatalError
from dc_platform.lake.store import Lake
from dc_platform.stack import trino_server
from dc_platform.stack.kafka import LocalKafka
from dc_platform.stack.trino import LocalTrino
from dc_platform_tests.stack.harness import free_ports


def archive(path: Path) -> Path:
    """Like the real one: jars are stored once, and linked to from other directories."""
    files = {
        "NOTICE": b"n",
        "bin/launcher": b"l",
        "plugin/bigquery/shared.jar": b"shared",
        "plugin/bigquery/other.jar": b"o",
        "lib/server.jar": b"server",
    }
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"trino-server-1/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in {
            "plugin/kafka/shared.jar": "plugin/bigquery/shared.jar",
            "plugin/delta-lake/server.jar": "lib/server.jar",
        }.items():
            link = tarfile.TarInfo(f"trino-server-1/{name}")
            link.type, link.linkname = tarfile.LNKTYPE, f"trino-server-1/{target}"
            tar.addfile(link)
    return path


def test_only_what_is_used_is_unpacked_and_links_stay_whole(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "trino"
    # What an unpacking that was killed has left.
    (tmp_path / "cache" / ".trino.new" / "trino-server-1" / "lib").mkdir(parents=True)
    trino_server.unpack(archive(tmp_path / "a.tar.gz"), target)
    found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
    assert found == {
        "bin/launcher": b"l",
        "lib/server.jar": b"server",
        "plugin/kafka/shared.jar": b"shared",
        "plugin/delta-lake/server.jar": b"server",
    }
    assert [p.name for p in target.parent.iterdir()] == ["trino"]


@pytest.mark.trino
@pytest.mark.kafka
@pytest.mark.slow
def test_trino_reads_the_tables_and_the_topic(kafka: LocalKafka, tmp_path: Path) -> None:
    # A path as people have them.
    home = tmp_path / "Müllers data"
    lake = Lake(str(home / "lake"))
    lake.ensure(SILVER_EVENTS)
    ensure_topic(kafka.bootstrap, "events-raw", partitions=2, replication=1)
    writer = RecordWriter(kafka.bootstrap, "events-raw")
    writer.write(b'{"eventType":"a"}\n{"eventType":"b"}', partition=1)
    writer.flush()
    writer.close()
    (port,) = free_ports(1)
    trino = LocalTrino(
        home / "trino",
        port,
        lake=lake.uri,
        bootstrap=kafka.bootstrap,
        topic="events-raw",
        memory_mb=2048,
    )
    with trino:
        columns = [row[0] for row in trino.query("DESCRIBE lake.silver.events")]
        assert columns == SILVER_EVENTS.columns.names
        assert trino.query("SELECT count(*) FROM lake.silver.events") == [[0]]
        # NDJSON records are read as the union view will: by offset, split into lines.
        assert trino.query(
            "SELECT _partition_offset, json_extract_scalar(line, '$.eventType')"
            " FROM kafka.default.events_raw CROSS JOIN UNNEST(split(_message, chr(10))) AS t(line)"
            " WHERE _partition_id = 1 AND _partition_offset >= 0"
        ) == [[0, "a"], [0, "b"]]
        with pytest.raises(FatalError, match="SCHEMA_NOT_FOUND"):
            trino.query("SELECT * FROM lake.bronze.events")
        # Tables that come into being later are there too.
        for spec in TABLES:
            lake.ensure(spec)
        assert trino.answers()
        assert trino.query("SELECT count(*) FROM lake.bronze.events") == [[0]]
