"""Trino: what is unpacked, and that it reads the tables and the topic."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from kafka import KafkaAdminClient

from benchmarks import store_commits
from dc_platform.broker.client import RecordWriter, describe_topic, ensure_topic
from dc_platform.contracts.ops_tables import GAPS
from dc_platform.contracts.spec import TableSpec
from dc_platform.contracts.tables import SILVER_EVENTS, TABLES
from dc_platform.errors import FatalError
from dc_platform.lake.store import Lake
from dc_platform.settings import Settings
from dc_platform.stack import trino_server, trino_tables
from dc_platform.stack.kafka import LocalKafka
from dc_platform.stack.trino_catalogs import KAFKA, LAKE
from dc_platform.stack.trino_tables import VIEW
from dc_platform_tests.e2e.parts import land
from dc_platform_tests.helpers.cli import dcp
from dc_platform_tests.helpers.landing import lines
from dc_platform_tests.helpers.records import block
from dc_platform_tests.helpers.trino import SharedTrino, Tables
from dc_platform_tests.stack.harness import wait_for


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
def test_trino_reads_the_tables_and_the_topic(
    kafka: LocalKafka, tmp_path: Path, shared_trino: SharedTrino
) -> None:
    # A path as people have them.
    lake = Lake(str(tmp_path / "Müllers data" / "lake"))
    lake.ensure(SILVER_EVENTS)
    ensure_topic(kafka.bootstrap, "events-raw", partitions=2, replication=1)
    writer = RecordWriter(kafka.bootstrap, "events-raw")
    writer.write(b'{"eventType":"a"}\n{"eventType":"b"}', partition=1)
    writer.flush()
    writer.close()
    trino = shared_trino.show(lake.uri, kafka.bootstrap, "events-raw")
    assert trino.keep() == {"silver.events"}
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


@pytest.mark.trino
@pytest.mark.kafka
@pytest.mark.slow
def test_every_table_is_registered_and_stays_so(
    kafka: LocalKafka, tmp_path: Path, shared_trino: SharedTrino
) -> None:
    lake = Lake(str(tmp_path / "lake"))
    ensure_topic(kafka.bootstrap, "kept", partitions=1, replication=1)
    trino = shared_trino.show(lake.uri, kafka.bootstrap, "kept")
    assert trino.keep() == set()
    # Tables that come into being after Trino, the union as soon as it can be.
    for spec in TABLES:
        lake.ensure(spec)
    whole = {spec.name for spec in TABLES} | {VIEW}
    assert trino.keep() == whole
    assert all(trino.query(f"SELECT count(*) FROM lake.{name}") == [[0]] for name in whole)
    # A table that is made anew, with fewer versions and other files than Trino has seen.
    append(lake, GAPS, 3)
    assert trino.query("SELECT count(*) FROM lake.ops.gaps") == [[3]]
    shutil.rmtree(lake.uri_of(GAPS))
    assert not trino.keep() & {GAPS.name}
    lake.ensure(GAPS)
    append(lake, GAPS, 1)
    assert trino.keep() == whole
    assert trino.query("SELECT count(*) FROM lake.ops.gaps") == [[1]]
    # The same, between two looks.
    for keeps_its_entry in (False, True):
        replace_table(lake, GAPS, keep=".trinoSchema" if keeps_its_entry else "")
        append(lake, GAPS, 2)
        assert trino.keep() == whole
        assert trino.query("SELECT count(*) FROM lake.ops.gaps") == [[2]]
    # All that Trino knew is deleted under it, and one that was started again knows nothing.
    for path in Path(lake.uri).rglob(".trino*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    for known in (trino, shared_trino.show(lake.uri, kafka.bootstrap, "kept")):
        assert known.keep() == whole
        assert known.query("SELECT count(*) FROM lake.ops.gaps") == [[2]]
        assert known.query("SELECT count(*) FROM lake.default.events") == [[0]]


@pytest.mark.trino
@pytest.mark.kafka
@pytest.mark.slow
def test_a_topic_that_is_created_again(
    kafka: LocalKafka, tmp_path: Path, shared_trino: SharedTrino, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view follows; what landed from the old topic, and comes again in the new, is there once."""
    monkeypatch.setattr(trino_tables, "_TOPIC_SECONDS", 0.0)
    settings = Settings(data_dir=tmp_path, kafka_bootstrap=kafka.bootstrap, topic="again")
    environment = {
        "DCP_DATA_DIR": str(tmp_path),
        "DCP_KAFKA_BOOTSTRAP": kafka.bootstrap,
        "DCP_TOPIC": "again",
    }
    send(settings, range(5))
    land(environment)
    send(settings, range(3, 8))
    trino = shared_trino.show(settings.lake, kafka.bootstrap, "again")
    assert counted(trino) == [8, 8]
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.delete_topics(["again"])
    admin.close()
    wait_for(lambda: describe_topic(kafka.bootstrap, "again") is None, 30)
    send(settings, range(4, 10))
    assert counted(trino) == [10, 10]
    land(environment)
    assert counted(trino) == [10, 10]
    send(settings, range(2))
    assert counted(trino) == [10, 10]
    send(settings, [11])
    assert counted(trino) == [11, 11]


@pytest.mark.trino
@pytest.mark.slow
def test_a_trino_of_somebody_else_on_a_disk(
    tmp_path: Path, shared_trino: SharedTrino, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DCP_TRINO_URL", shared_trino.url)
    lake = Lake(str(tmp_path / "Müllers lake"))
    for spec in TABLES:
        lake.ensure(spec)
    written = dcp(tmp_path, "trino", "catalog", str(tmp_path / "etc"), "--lake", lake.uri)
    assert [Path(line).relative_to(tmp_path) for line in written.splitlines()[:3]] == [
        Path("etc/catalog/lake.properties"),
        Path("etc/catalog/kafka.properties"),
        Path("etc/kafka/topic.json"),
    ]
    registered(tmp_path, shared_trino, lake.uri)


@pytest.mark.trino
@pytest.mark.slow
@pytest.mark.skipif(not store_commits.WEED.is_file(), reason="no S3 server: make bench-commits")
def test_a_trino_of_somebody_else_on_s3(
    tmp_path: Path, shared_trino: SharedTrino, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_commits.seaweed(tmp_path / "weed") as (uri, options):
        for spec in TABLES:
            DeltaTable.create(
                f"{uri}/lake/{spec.path}", spec.columns, storage_options=dict(options)
            )
        monkeypatch.setenv("DCP_TRINO_URL", shared_trino.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL", options["AWS_ENDPOINT_URL"])
        dcp(tmp_path, "trino", "catalog", str(tmp_path / "etc"), "--lake", f"{uri}/lake")
        registered(tmp_path, shared_trino, f"{uri}/lake")


def registered(directory: Path, trino: SharedTrino, lake: str) -> None:
    """The catalog that was written works, and each table is registered once."""
    trino.catalog(LAKE, (directory / "etc/catalog/lake.properties").read_text())
    trino.catalog(KAFKA, (directory / "etc/catalog/kafka.properties").read_text())
    for _ in range(2):
        said = dcp(directory, "trino", "register", "--lake", lake)
        assert said.startswith(f"{len(TABLES)} tables: ")
    assert trino.query("SELECT count(*) FROM lake.gold.events_hourly") == [[0]]


def test_without_a_trino_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "DCP_TRINO_URL" in dcp(tmp_path, "trino", "register", fails=True)
    monkeypatch.setenv("DCP_TRINO_URL", "http://127.0.0.1:9")
    assert "did not answer" in dcp(tmp_path, "trino", "register", fails=True)
    odd = dcp(tmp_path, "trino", "catalog", str(tmp_path), "--lake", "gs://bucket", fails=True)
    assert "a local directory or s3://, not gs://bucket" in odd


def counted(trino: Tables) -> list[int]:
    assert VIEW in trino.keep()
    sql = f"SELECT count(*), count(DISTINCT event_id) FROM lake.{VIEW}"
    return trino.query(sql)[0]


def send(settings: Settings, numbers: Iterable[int]) -> None:
    """A gateway's block of these events."""
    ensure_topic(settings.kafka_bootstrap, settings.topic, partitions=1, replication=1)
    record = block(lines(*numbers))
    writer = RecordWriter(settings.kafka_bootstrap, settings.topic)
    writer.write(record.value, partition=0, headers=list(record.headers.items()))
    writer.flush()
    writer.close()


def append(lake: Lake, spec: TableSpec, rows: int) -> None:
    """Commits of one row each."""
    nothing = pa.Table.from_pylist([{}] * 1, schema=spec.file_schema)
    for _ in range(rows):
        write_deltalake(lake.uri_of(spec), nothing, mode="append")


def replace_table(lake: Lake, spec: TableSpec, *, keep: str) -> None:
    """Another table in the place of one; what matches `keep` stays where it is."""
    root = Path(lake.uri_of(spec))
    kept = {path: path.read_bytes() for path in (root.glob(keep) if keep else ())}
    shutil.rmtree(root)
    lake.ensure(spec)
    for path, content in kept.items():
        path.write_bytes(content)
