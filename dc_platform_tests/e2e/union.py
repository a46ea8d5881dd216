"""A gateway, serving and a Trino over one topic; who wants it landed lands it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from dc_platform.registry.database import Database, migrate
from dc_platform.registry.sources import Sources, SourceType
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.settings import Settings
from dc_platform.stack.trino_tables import VIEW
from dc_platform_tests.e2e.parts import http_part, kafka
from dc_platform_tests.e2e.platform import Source, wait_for
from dc_platform_tests.helpers.trino import SharedTrino, Tables

TOPIC = "trino-union"


class UnionScene(NamedTuple):
    """The parts, and the settings that they share."""

    environment: dict[str, str]
    token: str
    gateway: str
    serving: str
    trino: Tables

    @property
    def settings(self) -> Settings:
        """Those of every part."""
        return Settings(
            data_dir=Path(self.environment["DCP_DATA_DIR"]),
            kafka_bootstrap=self.environment["DCP_KAFKA_BOOTSTRAP"],
            topic=TOPIC,
        )

    def show(self, trino: SharedTrino) -> UnionScene:
        """Trino looks at this scene from now on."""
        trino.show(self.settings.lake, self.settings.kafka_bootstrap, TOPIC)
        wait_for(lambda: VIEW in self.trino.keep(), 60, "the union in Trino")
        return self

    def source(self, name: str, schema: Mapping[str, Any] | None = None) -> Source:
        """A new source."""
        database = Database(self.settings.registry)
        source, key = Sources(database).create(name, SourceType.SERVER, schema=schema)
        database.close()
        return Source(source.source_id, key)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What serving answers."""
        answer = httpx.post(
            f"{self.serving}/api/v1/sql",
            json={"sql": sql},
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found


@contextmanager
def union_parts(directory: Path, trino: SharedTrino) -> Iterator[UnionScene]:
    """The scene for the length of the block; `show` it before Trino is asked."""
    with kafka(directory / "kafka") as broker:
        settings = Settings(data_dir=directory / "data")
        environment = {
            "DCP_DATA_DIR": str(settings.data_dir),
            "DCP_KAFKA_BOOTSTRAP": broker.bootstrap,
            "DCP_TOPIC": TOPIC,
        }
        migrate(settings.registry)
        database = Database(settings.registry)
        token = Tokens(database).create(Scope.QUERY)
        database.close()
        gateway_part = http_part("dc_platform.gateway", environment, log=directory / "gateway.log")
        serving_part = http_part("dc_platform.serving", environment, log=directory / "serving.log")
        with gateway_part as gateway, serving_part as serving:
            tables = trino.tables(settings.lake, broker.bootstrap, TOPIC)
            yield UnionScene(environment, token, gateway, serving, tables)
