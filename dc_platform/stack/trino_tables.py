"""Keeps the tables of the lake, and the union, known to a Trino.

Each look compares what Trino knows with what the lake has, so it does not matter who made a table or
when, or whether Trino lost what it knew: its metastore is made of files in the lake, which anyone may
delete.
"""

from __future__ import annotations

import time
from pathlib import Path

from dc_platform.broker.client import describe_topic
from dc_platform.contracts.ops_tables import LANDING_BORDER
from dc_platform.contracts.spec import TableSpec
from dc_platform.contracts.tables import SILVER_EVENTS, TABLES
from dc_platform.errors import BrokerUnavailableError, FatalError
from dc_platform.serving.trino_view import union_sql
from dc_platform.stack.trino_catalogs import KAFKA, LAKE, SCHEMA, Topic, location_of
from dc_platform.stack.trino_client import TrinoClient

VIEW = f"{SCHEMA}.events"
_NEEDED = {SILVER_EVENTS.name, LANDING_BORDER.name}
_NO_TABLE = "No transaction log found"
# How soon the view of the union follows a topic that was deleted and created again.
_TOPIC_SECONDS = 30.0


class TrinoTables:
    """The tables below `lake`, in the catalogs `lake` and `kafka` of one Trino."""

    def __init__(
        self, trino: TrinoClient, lake: str, topic: Topic, *, late_ms: int = 3_600_000
    ) -> None:
        self._trino = trino
        self._lake = lake
        self._topic = topic
        self._late_ms = late_ms
        self.forget()

    def forget(self) -> None:
        """What is known of Trino holds no longer: it was started anew."""
        self._topic_id = ""
        self._looked_at = 0.0

    def keep(self) -> set[str]:
        """Register what is missing and put the view right; gives the names of all that is there.

        Raises FatalError with Trino's reason, httpx.HTTPError when it does not answer.
        """
        known = self._known()
        for spec in TABLES:
            if spec.name not in known and self._exists(spec) and self._register(spec):
                known.add(spec.name)
        if known >= _NEEDED:
            self._show_union(known)
        return known

    def _known(self) -> set[str]:
        found = self._trino.query(
            f"SELECT table_schema, table_name FROM {LAKE}.information_schema.tables"
            " WHERE table_schema <> 'information_schema'"
        )
        return {f"{schema}.{table}" for schema, table in found}

    def _exists(self, spec: TableSpec) -> bool:
        # Of a store Trino says whether it has a table.
        return "://" in self._lake or (Path(self._lake) / spec.path / "_delta_log").is_dir()

    def _register(self, spec: TableSpec) -> bool:
        layer, table = spec.name.split(".")
        self._trino.query(f"CREATE SCHEMA IF NOT EXISTS {LAKE}.{layer}")
        try:
            self._trino.query(
                f"CALL {LAKE}.system.register_table(schema_name => '{layer}',"
                f" table_name => '{table}', table_location => '{location_of(self._lake, spec)}')"
            )
        except FatalError as error:
            if _NO_TABLE in str(error):
                return False
            raise
        return True

    def _show_union(self, known: set[str]) -> None:
        """Keep the view of the union true to the topic that there is now."""
        recent = time.monotonic() - self._looked_at < _TOPIC_SECONDS
        if VIEW in known and self._topic_id and recent:
            return
        try:
            info = describe_topic(self._topic.bootstrap, self._topic.name)
        except BrokerUnavailableError:
            return
        self._looked_at = time.monotonic()
        if info is None or (VIEW in known and info.topic_id == self._topic_id):
            return
        table = f"{KAFKA}.{SCHEMA}.{self._topic.table}"
        union = union_sql(info.topic_id, table, late_ms=self._late_ms, lake=LAKE)
        self._trino.query(f"CREATE SCHEMA IF NOT EXISTS {LAKE}.{SCHEMA}")
        self._trino.query(f"CREATE OR REPLACE VIEW {LAKE}.{VIEW} SECURITY INVOKER AS {union}")
        self._topic_id = info.topic_id
        known.add(VIEW)
