"""A topic on a real broker, a lake on disk, and real processes that are killed between them."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from kafka import KafkaAdminClient, TopicPartition

from dc_platform.broker.client import RecordWriter, ensure_topic
from dc_platform.broker.reader import reader_for
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.lake.table import LakeTable
from dc_platform.points import Point
from dc_platform_tests.crash.processes import Process, started
from dc_platform_tests.simulator import audit
from dc_platform_tests.simulator.broker import SimBroker
from dc_platform_tests.simulator.client import Client

_PATIENCE_SECONDS = 120
_LAND = ["dc_platform.cli.main", "land", "--until-caught-up"]


class Scene:
    """One case: its topic, its lake, and what was acknowledged."""

    def __init__(self, bootstrap: str, directory: Path, name: str, seed: int) -> None:
        self.chance = Random(f"{name} {seed}")
        self.directory = directory
        self.info = ensure_topic(
            bootstrap,
            f"{re.sub(r'[^a-z]+', '-', name)}-{seed}",
            partitions=self.chance.randint(2, 3),
            replication=1,
        )
        self.lake = Lake(str(directory / "lake"))
        self.events = 0
        # The clients write into a list of what Kafka will have; offsets are the same there.
        self._plan = SimBroker(self.info)
        self.client = Client(self._plan, self.chance, transactions=False)
        self._bootstrap = bootstrap
        # Records per partition.
        self.sent = [0] * self.info.partitions
        self.environment = {
            "DCP_KAFKA_BOOTSTRAP": bootstrap,
            "DCP_TOPIC": self.info.name,
            "DCP_LAKE_URI": self.lake.uri,
            "DCP_DATA_DIR": str(directory / "data"),
            "DCP_UNKNOWN_SOURCES": "accept",
            # A poll gives 2,000 records at most: each is a batch.
            "DCP_LANDING_FILE_MB": "0.001",
            # Some look identities up in memory, some in files.
            "DCP_IDENTITY_MEMORY_MB": str(self.chance.choice([8, 512])),
        }

    def send(self, records: int) -> None:
        """Records of all kinds, some of them again; returns when Kafka has them."""
        for _ in range(records):
            self.client.send(0)
        writer = RecordWriter(self._bootstrap, self.info.name)
        for number, part in enumerate(self._plan.partitions):
            for record in part.log[self.sent[number] :]:
                assert record is not None
                headers = list(record.headers.items())
                writer.write(record.value, partition=number, headers=headers)
            self.sent[number] = len(part.log)
        writer.close()
        assert self._ends() == dict(enumerate(self.sent))
        [told] = self.client.acknowledged.values()
        self.events = sum(map(len, told.values()))

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        """Retention."""
        admin = KafkaAdminClient(bootstrap_servers=self._bootstrap)
        admin.delete_records(
            {TopicPartition(self.info.name, number): end for number, end in offsets.items()}
        )
        admin.close()

    def land(self) -> None:
        """`dcp land --until-caught-up`, to its end."""
        self.expect(_LAND, 0)

    def land_killed(self, point: Point, nth: int = 1) -> None:
        """`dcp land`, which must die at the point."""
        self.expect(_LAND, -signal.SIGKILL, {"DCP_CRASH_AT": f"{point}:{nth}"})

    def expect(
        self, command: Sequence[str], code: int, more: Mapping[str, str] | None = None
    ) -> None:
        """Run a process of the platform, which must end in this way."""
        self.wait(self.start(command, more or {}), code)

    def start(self, command: Sequence[str], more: Mapping[str, str]) -> Process:
        """`python -m …` with the environment of the scene; what it says is in `log`."""
        return started(command, {**self.environment, **more}, self.directory / "log")

    def wait(self, process: Process, code: int) -> None:
        """For its end."""
        process.join(_PATIENCE_SECONDS)
        found = process.exitcode
        process.kill()
        assert found == code, f"ended with {found}, not {code}:\n{self.said()}"

    def said(self) -> str:
        """The end of the log."""
        return (self.directory / "log").read_text(errors="replace")[-3000:]

    def wait_until_landed(self) -> None:
        """Until silver stands where Kafka ends."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._landed():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def _landed(self) -> bool:
        from dc_platform.landing.batch_commit import next_offset

        if not self.lake.exists(SILVER_EVENTS):
            return False
        silver = LakeTable(self.lake, SILVER_EVENTS)
        return all(
            (next_offset(silver, self.info, number) or 0) >= end
            for number, end in enumerate(self.sent)
        )

    def _ends(self) -> dict[int, int]:
        reader = reader_for(self._bootstrap, self.info)
        try:
            return reader.end_offsets()
        finally:
            reader.close()

    def findings(self) -> list[str]:
        """What the sheet and the platform's own checks find."""
        reader = reader_for(self._bootstrap, self.info)
        try:
            begins = reader.beginning_offsets()
        finally:
            reader.close()
        living = audit.Living(self.info, begins)
        found = audit.findings(self.lake, self.client.acknowledged, living)
        return found + audit.own_audit(self.lake)
