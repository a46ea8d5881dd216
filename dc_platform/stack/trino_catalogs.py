"""The files by which a Trino, ours or another, knows the lake and the topic.

Secrets are not in them: for S3 Trino reads the usual variables of its own environment
(`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from dc_platform.contracts.spec import TableSpec
from dc_platform.errors import ConfigurationError

LAKE, KAFKA = "lake", "kafka"
# Who names no schema finds the union.
SCHEMA = "default"

_LAKE = """\
connector.name=delta_lake
hive.metastore=file
hive.metastore.catalog.dir={root}
{store}
delta.register-table-procedure.enabled=true
# Tables that Trino makes (CREATE TABLE AS) lie where the others do: layer/table.
delta.unique-table-location=false
"""
_LOCAL = """\
fs.native-local.enabled=true
local.location={lake}"""
_S3 = """\
fs.native-s3.enabled=true
s3.region={region}
s3.aws-access-key=${{ENV:AWS_ACCESS_KEY_ID}}
s3.aws-secret-key=${{ENV:AWS_SECRET_ACCESS_KEY}}"""
_S3_ENDPOINT = """
s3.endpoint={endpoint}
s3.path-style-access=true"""
_KAFKA = """\
connector.name=kafka
kafka.nodes={bootstrap}
kafka.table-names={table}
# Below Trino's directory: the file topic.json.
kafka.table-description-dir=etc/kafka
"""


class Topic(NamedTuple):
    """The topic, and where its brokers are (host:port, more of them after commas)."""

    bootstrap: str
    name: str

    @property
    def table(self) -> str:
        """Its name as a table of catalog `kafka`, schema `default`."""
        return self.name.lower().replace("-", "_").replace(".", "_")

    def description(self) -> str:
        """The table of its records, as JSON: only the connector's own columns (`_message`, …)."""
        content = {
            "tableName": self.table,
            "schemaName": SCHEMA,
            "topicName": self.name,
            "message": {"dataFormat": "dummy", "fields": []},
        }
        # JSON escapes what is not ASCII as Java's properties do.
        return json.dumps(content, indent=2) + "\n"

    def catalog(self) -> str:
        """`kafka.properties`."""
        return _KAFKA.format(bootstrap=self.bootstrap, table=self.table)


def lake_catalog(lake: str, environment: Mapping[str, str] | None = None) -> str:
    """`lake.properties` over the tables below the URI `lake`, on this disk or on S3.

    Region and endpoint of S3 are those of `environment` (AWS_REGION, AWS_ENDPOINT_URL).
    """
    if "://" not in lake:
        store = _LOCAL.format(lake=Path(lake).absolute())
    elif lake.startswith("s3://"):
        known = os.environ if environment is None else environment
        endpoint = known.get("AWS_ENDPOINT_URL", "")
        store = _S3.format(region=known.get("AWS_REGION", "us-east-1"))
        store += _S3_ENDPOINT.format(endpoint=endpoint) if endpoint else ""
    else:
        raise ConfigurationError(f"Trino's catalog is for a local directory or s3://, not {lake}")
    return _LAKE.format(root=_root(lake), store=store)


def files(lake: str, topic: Topic, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Path below Trino's `etc` → content."""
    return {
        f"catalog/{LAKE}.properties": lake_catalog(lake, environment),
        f"catalog/{KAFKA}.properties": topic.catalog(),
        "kafka/topic.json": topic.description(),
    }


def location_of(lake: str, spec: TableSpec) -> str:
    """Where that catalog finds a table."""
    return f"{_root(lake).rstrip('/')}/{spec.path}" if "://" in lake else f"local:///{spec.path}"


def _root(lake: str) -> str:
    return lake if "://" in lake else "local:///"
