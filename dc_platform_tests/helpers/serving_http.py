"""The HTTP of serving over a view, on a real port, and a data directory that `dcp sql` finds it by."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import uvicorn
from fastapi import FastAPI

from dc_platform.registry.access import TokenRing
from dc_platform.registry.database import Database, migrate
from dc_platform.registry.metrics import Metrics
from dc_platform.registry.reports import Reports
from dc_platform.registry.retention import Retention
from dc_platform.registry.sources import Sources
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.serving import monitoring
from dc_platform.serving.app import add_routes
from dc_platform.serving.past import Past
from dc_platform.serving.readers import Readers
from dc_platform.serving.turns import Turns
from dc_platform_tests.helpers.serving import Served
from dc_platform_tests.stack.harness import free_ports, wait_for


class Door:
    """Where serving answers, and a token for it."""

    def __init__(self, served: Served) -> None:
        self.served = served
        migrate(served.settings.registry)
        self.database = Database(served.settings.registry)
        self.token = Tokens(self.database).create(Scope.QUERY)
        self.headers = {"Authorization": f"Bearer {self.token}"}
        self.sources = Sources(self.database)
        self.tail = SimpleNamespace(view=served.view, kafka_answers=True, events_per_second=12.0)
        self.monitoring = monitoring.Monitoring(served.engine, self.sources)
        self.app = FastAPI()
        self.app.state.engine = served.engine
        # None: the engine answers.
        self.app.state.readers = Readers(served.settings, 0)
        self.app.state.search = served.search
        self.app.state.tail = self.tail
        self.app.state.lake_uri = served.lake.uri
        self.app.state.monitoring = self.monitoring
        self.app.state.tokens = TokenRing(Tokens(self.database), seconds=60)
        self.app.state.sources = self.sources
        self.app.state.metrics = Metrics(self.database)
        self.retention = Retention(self.database)
        self.app.state.reports = Reports(self.database)
        self.app.state.past = Past(served.lake, self.retention)
        self.app.state.turns = Turns(running=24, per_tenant=8, seconds=10)
        self.app.state.sql_turns = Turns(running=6, per_tenant=3, seconds=10, kind="SQL")
        add_routes(self.app)
        self.url = ""

    def token_of(self, tenant_id: str) -> str:
        """A query token of a tenant."""
        return Tokens(self.database).create(Scope.QUERY, tenant_id=tenant_id)

    @contextmanager
    def open(self) -> Iterator[Door]:
        """Listen on a port."""
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        stack = {"query": self.url}
        (self.served.settings.data_dir / "stack.json").write_text(json.dumps(stack))
        server = uvicorn.Server(uvicorn.Config(self.app, port=port, log_config=None))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_for(lambda: server.started)
        try:
            yield self
        finally:
            server.should_exit = True
            thread.join(60)
            self.database.close()
