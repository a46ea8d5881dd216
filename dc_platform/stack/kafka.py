"""A real Kafka broker on this machine: one process that is broker and controller (KRaft).

Everything that it knows is in its directory: started again there, after an orderly end or after
`kill -9`, it has the same cluster id and the same topics. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import uuid
from pathlib import Path

from dc_platform.errors import FatalError
from dc_platform.stack import artifacts
from dc_platform.stack.java import find_java
from dc_platform.stack.ports import HOST
from dc_platform.stack.probes import kafka_answers
from dc_platform.stack.server import LocalServer, write_properties

_FORMAT_SECONDS = 120

_PROPERTIES = """\
# Written at each start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
log.dirs={data}
auto.create.topics.enable=false

# A block has at most 1 MiB, a rejected body 10 MiB; Arrow blocks of other producers more.
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
log.retention.hours=168

# One broker: nothing to replicate to, nobody to wait for.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
# A broker that was killed is let in again when its old session has ended.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# Small machine.
num.network.threads=2
num.io.threads=4
background.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216
"""

_LOGGING = """\
# Written at each start. Standard output is the stack's log of this part.
status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{{yyyy-MM-dd HH:mm:ss,SSS}} %-7p %c: %m%n
# The broker prints its whole configuration several times.
logger.config.name = org.apache.kafka.common.config
logger.config.level = warn
logger.image.name = org.apache.kafka.image.loader
logger.image.level = warn
rootLogger.level = {level}
rootLogger.appenderRef.out.ref = out
"""


class LocalKafka(LocalServer):
    """One broker in one directory."""

    name = "kafka"

    def __init__(
        self,
        directory: Path,
        port: int,
        controller_port: int,
        *,
        memory_mb: int = 512,
        log: Path | None = None,
        log_level: str = "INFO",
    ) -> None:
        super().__init__(directory, log)
        self.port = port
        self.controller_port = controller_port
        self._memory_mb = memory_mb
        self._log_level = log_level
        self._data = self.directory / "data"
        self._properties = self.directory / "server.properties"
        self._logging = self.directory / "log4j2.properties"

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"{HOST}:{self.port}"

    def answers(self) -> bool:
        """Whether the broker knows its cluster."""
        return kafka_answers(self.bootstrap)

    def prepare(self) -> list[str]:
        """Fetch, configure, format once; gives the command that runs the broker."""
        jars = artifacts.fetch("Apache Kafka", artifacts.kafka_pins())
        write_properties(
            self._properties,
            _PROPERTIES.format(
                host=HOST, port=self.port, controller_port=self.controller_port, data=self._data
            ),
        )
        write_properties(self._logging, _LOGGING.format(level=self._log_level))
        java = [
            str(find_java().path),
            "-cp",
            os.pathsep.join(str(jar) for jar in jars),
            f"-Dlog4j2.configurationFile={self._logging}",
            # The compression libraries; Java warns of what it will forbid one day.
            "--enable-native-access=ALL-UNNAMED",
            "--sun-misc-unsafe-memory-access=allow",
        ]
        self._format(java)
        return [
            *java,
            f"-Xmx{self._memory_mb}m",
            # A broker without memory answers nobody: better to end and be started again.
            "-XX:+ExitOnOutOfMemoryError",
            f"-XX:ErrorFile={self.log.parent}/kafka-crash-%p.log",
            "kafka.Kafka",
            str(self._properties),
        ]

    def _format(self, java: list[str]) -> None:
        """Give the directory a cluster id, once.

        The id is written last and makes the directory a formatted one: before that no broker ran
        here, so what an interrupted attempt left can be thrown away.
        """
        marker = self.directory / "cluster-id"
        if marker.exists():
            return
        shutil.rmtree(self._data, ignore_errors=True)
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # One word: an id that begins with a dash (one in 64) would be taken for an option.
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}"]
        try:
            subprocess.run(
                [*java, *tool, "-c", str(self._properties)],
                capture_output=True,
                text=True,
                timeout=_FORMAT_SECONDS,
                check=True,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.SubprocessError as error:
            said = str(getattr(error, "stderr", ""))[-500:]
            raise FatalError(f"Kafka's storage could not be formatted: {error}: {said}") from error
        written = marker.with_suffix(".new")
        written.write_text(cluster_id + "\n")
        written.replace(marker)
