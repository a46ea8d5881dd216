"""A real Trino on this machine, over the lake and over the topic.

Catalog `lake` reads the Delta tables, each as `layer.table`; its metastore is made of files in the
lake's root. Catalog `kafka` reads the topic by the stock connector. `lake.default.events` is a view,
the union of both. Listens on 127.0.0.1 only.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx

from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.errors import FatalError
from dc_platform.stack import trino_catalogs, trino_server
from dc_platform.stack.java import find_java
from dc_platform.stack.ports import HOST
from dc_platform.stack.probes import http_answers
from dc_platform.stack.server import LocalServer, write_properties
from dc_platform.stack.trino_catalogs import LAKE, Topic
from dc_platform.stack.trino_client import TrinoClient
from dc_platform.stack.trino_tables import TrinoTables

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
        self._port = port
        self._lake = lake
        self._topic = Topic(bootstrap, topic)
        self._memory_mb = memory_mb
        self._client = TrinoClient(self.url)
        self._tables = TrinoTables(self._client, lake, self._topic, late_ms=late_ms)
        self._has_worked = False

    def prepare(self) -> list[str]:
        """Fetch and configure; gives the command that runs Trino."""
        installed = trino_server.installed()
        self._tables.forget()
        self._has_worked = False
        if "://" not in self._lake:
            Path(self._lake).mkdir(parents=True, exist_ok=True)
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
        for name, content in trino_catalogs.files(self._lake, self._topic).items():
            self._write(name, content)
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
            known = self._tables.keep()
            if SILVER_EVENTS.name in known and not self._has_worked:
                # It has started some seconds before it knows itself as a worker for its catalogs.
                self._client.query_once(f"SELECT 1 FROM {LAKE}.{SILVER_EVENTS.name} LIMIT 1")
                self._has_worked = True
        except (httpx.HTTPError, FatalError):
            return False
        return True

    def query(self, sql: str) -> list[list[Any]]:
        """All rows of a statement; waits for a Trino that has no worker yet."""
        return self._client.query(sql)

    def _write(self, name: str, text: str) -> None:
        write_properties(self.directory / "etc" / name, text)
