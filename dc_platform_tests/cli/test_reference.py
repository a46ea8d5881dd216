"""`dcp reference`: a file becomes a table, and a schema's typed view gets its columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dc_platform.contracts.shapes import Enrichment, TypedField
from dc_platform.registry.database import Database
from dc_platform.registry.shapes import Shapes
from dc_platform.settings import Settings
from dc_platform_tests.helpers.cli import dcp

SCHEMA = {
    "fields": [
        {"name": "origin", "type": "STRING", "required": True},
        {"name": "delay", "type": "NUMBER", "defaultValue": 0},
    ]
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "code,city\nANC,Anchorage\nLAX,Los Angeles\n"),
        ("a.jsonl", '{"code":"ANC","city":"Anchorage"}\n{"code":"LAX","city":"Los Angeles"}\n'),
    ],
)
def test_a_file_becomes_a_table(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    put = dcp(
        tmp_path, "reference", "put", "airports", str(tmp_path / name), "--key", "code", "--json"
    )
    assert json.loads(put)["rows"] == 2
    [listed] = json.loads(dcp(tmp_path, "reference", "list", "--json"))
    assert listed["columns"] == {"code": "string", "city": "string"}
    dcp(tmp_path, "reference", "remove", "airports")
    assert json.loads(dcp(tmp_path, "reference", "list", "--json")) == []


def test_a_schema_is_enriched_from_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("code,city\nANC,Anchorage\n")
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    dcp(tmp_path, "reference", "put", "airports", str(tmp_path / "a.csv"), "--key", "code")
    made = json.loads(
        dcp(tmp_path, "schema", "create", "Flights 1", str(tmp_path / "schema.json"), "--json")
    )
    source = json.loads(dcp(tmp_path, "source", "create", "s", "--json"))["sourceId"]
    dcp(tmp_path, "schema", "bind", source, made["schemaId"])
    dcp(tmp_path, "reference", "bind", "airports", made["schemaId"], "origin")
    shape = shapes(tmp_path).of("default")["flights_1"]
    assert shape.source_ids == [source]
    assert shape.fields == [TypedField("origin", "STRING"), TypedField("delay", "NUMBER", 0)]
    assert shape.enrichments == [Enrichment("origin", "airports")]
    assert shapes(tmp_path).of("another") == {}
    dcp(tmp_path, "reference", "unbind", made["schemaId"], "origin")
    assert shapes(tmp_path).of("default")["flights_1"].enrichments == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["put", "Airports", "{csv}", "--key", "code"], "cannot name a reference table"),
        (["put", "airports", "{csv}", "--key", "iata"], "no column 'iata'"),
        (["remove", "airports"], "dcp reference list"),
        (["bind", "airports", "none", "origin"], "no ref.airports"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "a.csv").write_text("code,city\nANC,Anchorage\n")
    filled = [a.replace("{csv}", str(tmp_path / "a.csv")) for a in arguments]
    reason = dcp(tmp_path, "reference", *filled, fails=True)
    assert says in reason
    assert reason.count("\n") == 1


def shapes(directory: Path) -> Shapes:
    return Shapes(Database(Settings(data_dir=directory).registry), seconds=0)
