"""A real Trino on this machine, over the lake and over the topic.

Catalog `lake` reads the Delta tables, each as `layer.table`; its metastore is made of files in the
lake's root. Catalog `kafka` reads the topic by the stock connector. `lake.default.events` is a view,
the union of both. Listens on 127.0.0.1 only.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
from tenacity import retry, retry_if_exception_message, stop_after_delay, wait_fixed

from dc_platform.broker.client import describe_topic
from dc_platform.contracts.ops_tables import LANDING_BORDER
from dc_platform.contracts.tables import SILVER_EVENTS, TABLES
from dc_platform.errors import BrokerUnavailableError, FatalError
from dc_platform.serving.trino_view import union_sql
from dc_platform.stack import trino_server
from dc_platform.stack.java import find_java
from dc_platform.stack.ports import HOST
from dc_platform.stack.probes import http_answers
from dc_platform.stack.server import LocalServer, write_properties

_JVM = """\
-server
-Xmx{memory}m
-XX:G1HeapRegionSize=32M
-XX:+ExplicitGCInvokesConcurrent
-XX:+ExitOnOutOfMemoryError
-XX:-OmitStackTraceInFastThrow
-XX:ReservedCodeCacheSize=256M
-XX:PerMethodRecompilationCutoff=10000
-XX:PerBytecodeRecompilationCutoff=10000
-XX:+EnableDynamicAgentLoading
-Djdk.attach.allowAttachSelf=true
-Djdk.nio.maxCachedBufferSize=2000000
-Dfile.encoding=UTF-8
-Duser.timezone=UTC
--enable-native-access=ALL-UNNAMED
--sun-misc-unsafe-memory-access=allow
"""
_NODE = """\
node.environment=local
node.id=local
node.data-dir={directory}/data
node.bind-ip={host}
node.internal-address={host}
"""
_CONFIG = """\
coordinator=true
node-scheduler.include-coordinator=true
http-server.http.port={port}
http-server.log.enabled=false
discovery.uri={url}
plugin.dir={installed}/plugin
catalog.config-dir={directory}/etc/catalog
sql.forced-session-time-zone=UTC
"""
_LEVELS = """\
io.trino=INFO
# These print the whole configuration, and a line for each query.
Bootstrap=WARN
io.trino.event.QueryMonitor=WARN
"""
_LAKE = """\
connector.name=delta_lake
hive.metastore=file
hive.metastore.catalog.dir=local:///
fs.native-local.enabled=true
local.location={lake}
delta.register-table-procedure.enabled=true
# Tables that Trino makes (CREATE TABLE AS) lie where the others do: layer/table.
delta.unique-table-location=false
"""
_KAFKA = """\
connector.name=kafka
kafka.nodes={bootstrap}
kafka.table-names={table}
kafka.table-description-dir={directory}/etc/kafka
"""
# A Trino that has just started, or was starved, has no worker for some seconds.
_NO_WORKER = "Trino: NO_NODES_AVAILABLE"
_WORKER_SECONDS = 30.0
# How soon the view of the union follows a topic that was deleted and created again.
_TOPIC_SECONDS = 30.0
# Who names no schema finds the union.
SCHEMA = "default"


class LocalTrino(LocalServer):
    """One Trino in one directory: coordinator and worker."""

    name = "trino"

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        lake: str,
        bootstrap: str,
        topic: str,
        late_ms: int = 3_600_000,
        memory_mb: int = 3072,
        log: Path | None = None,
    ) -> None:
        super().__init__(directory, log)
        self.url = f"http://{HOST}:{port}"
        self.topic_table = topic.lower().replace("-", "_").replace(".", "_")
        self._port = port
        self._lake = Path(lake)
        self._bootstrap = bootstrap
        self._topic = topic
        self._late_ms = late_ms
        self._memory_mb = memory_mb
        self._registered: set[str] = set()
        self._has_worked = False
        self._topic_id = ""
        self._looked_at = 0.0

    def prepare(self) -> list[str]:
        """Fetch and configure; gives the command that runs Trino."""
        installed = trino_server.installed()
        self._registered.clear()
        self._has_worked = False
        self._topic_id = ""
        self._lake.mkdir(parents=True, exist_ok=True)
        node = _NODE.format(directory=self.directory, host=HOST)
        self._write("jvm.config", _JVM.format(memory=self._memory_mb))
        self._write("node.properties", node)
        self._write("log.properties", _LEVELS)
        self._write(
            "config.properties",
            _CONFIG.format(
                port=self._port, url=self.url, installed=installed, directory=self.directory
            ),
        )
        self._write("catalog/lake.properties", _LAKE.format(lake=self._lake.absolute()))
        self._write(
            "catalog/kafka.properties",
            _KAFKA.format(
                bootstrap=self._bootstrap, table=self.topic_table, directory=self.directory
            ),
        )
        # JSON escapes what is not ASCII in the same way.
        self._write("kafka/topic.json", json.dumps(self._topic_description(), indent=2))
        java = find_java()
        etc = self.directory / "etc"
        return [
            str(java.path),
            f"@{etc / 'jvm.config'}",
            *(["--add-modules=jdk.incubator.vector"] if java.has_vector else []),
            "-cp",
            f"{installed / 'lib'}{os.sep}*",
            *(f"-D{line}" for line in node.splitlines()),
            f"-Dconfig={etc / 'config.properties'}",
            f"-Dlog.levels-file={etc / 'log.properties'}",
            "io.trino.server.TrinoServer",
        ]

    def answers(self) -> bool:
        """Whether Trino takes queries and knows the tables that the lake has by now."""
        if not http_answers(HOST, self._port, "/v1/info", starting=False):
            return False
        try:
            self._register_tables()
            if self._registered and not self._has_worked:
                # It has started some seconds before it knows itself as a worker for its catalogs.
                self._run(f"SELECT 1 FROM lake.{min(self._registered)} LIMIT 1")
                self._has_worked = True
            self._show_union()
        except (httpx.HTTPError, FatalError):
            return False
        return True

    @retry(
        retry=retry_if_exception_message(match=_NO_WORKER),
        wait=wait_fixed(0.5),
        stop=stop_after_delay(_WORKER_SECONDS),
        reraise=True,
    )
    def query(self, sql: str) -> list[list[Any]]:
        """All rows of a statement; waits for a Trino that has no worker yet."""
        return self._run(sql)

    def _run(self, sql: str) -> list[list[Any]]:
        rows: list[list[Any]] = []
        with httpx.Client(timeout=60.0, headers={"X-Trino-User": "dcp"}) as client:
            answer = client.post(f"{self.url}/v1/statement", content=sql).raise_for_status().json()
            while True:
                if "error" in answer:
                    error = answer["error"]
                    raise FatalError(f"Trino: {error.get('errorName')}: {error.get('message')}")
                rows += answer.get("data") or []
                if "nextUri" not in answer:
                    return rows
                answer = client.get(answer["nextUri"]).raise_for_status().json()

    def _register_tables(self) -> None:
        missing = [
            spec
            for spec in TABLES
            if spec.name not in self._registered
            and (self._lake / spec.path / "_delta_log").is_dir()
        ]
        if not missing:
            return
        known = {
            f"{schema}.{table}"
            for schema, table in self.query(
                "SELECT table_schema, table_name FROM lake.information_schema.tables"
            )
        }
        for spec in missing:
            if spec.name not in known:
                layer, table = spec.name.split(".")
                self.query(f"CREATE SCHEMA IF NOT EXISTS lake.{layer}")
                self.query(
                    f"CALL lake.system.register_table(schema_name => '{layer}',"
                    f" table_name => '{table}', table_location => 'local:///{spec.path}')"
                )
            self._registered.add(spec.name)

    def _show_union(self) -> None:
        """Keep the view of the union true to the topic that there is now."""
        recent = time.monotonic() - self._looked_at < _TOPIC_SECONDS
        needed = {SILVER_EVENTS.name, LANDING_BORDER.name}
        if (self._topic_id and recent) or not needed <= self._registered:
            return
        try:
            info = describe_topic(self._bootstrap, self._topic)
        except BrokerUnavailableError:
            return
        self._looked_at = time.monotonic()
        if info is None or info.topic_id == self._topic_id:
            return
        table = f"kafka.default.{self.topic_table}"
        union = union_sql(info.topic_id, table, late_ms=self._late_ms)
        self.query(f"CREATE SCHEMA IF NOT EXISTS lake.{SCHEMA}")
        self.query(f"CREATE OR REPLACE VIEW lake.{SCHEMA}.events SECURITY INVOKER AS {union}")
        self._topic_id = info.topic_id

    def _topic_description(self) -> dict[str, Any]:
        """The topic as a table of records: only the connector's own columns (`_message`, …)."""
        return {
            "tableName": self.topic_table,
            "schemaName": "default",
            "topicName": self._topic,
            "message": {"dataFormat": "dummy", "fields": []},
        }

    def _write(self, name: str, text: str) -> None:
        write_properties(self.directory / "etc" / name, text)
