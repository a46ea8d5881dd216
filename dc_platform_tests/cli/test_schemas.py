"""`dcp schema`: from a file to a source that is judged by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dc_platform.cli.main import app, main
from dc_platform.registry.database import Database
from dc_platform.registry.sources import Sources, SourceStatus


class Verbs:
    """Runs verbs in this process: fifteen of them as processes take half a minute."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str], monkey: Any) -> None:
        self._directory, self._capsys, self._monkey = directory, capsys, monkey

    def __call__(self, *arguments: str, code: int = 0) -> str:
        command = ["dcp", *arguments, "--data-dir", str(self._directory)]
        self._monkey.setattr("sys.argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        shown = self._capsys.readouterr()
        return str(shown.err if code and shown.err else shown.out)

    def file(self, name: str, content: Any) -> str:
        path = self._directory / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)


@pytest.fixture
def dcp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Verbs:
    assert app.info.name == "dcp"
    return Verbs(tmp_path, capsys, monkeypatch)


def fields(*names: str, **more: Any) -> dict[str, Any]:
    return {"fields": [{"name": name, "type": "NUMBER", **more} for name in names]}


def test_a_schema_is_made_tried_changed_and_bound(dcp: Verbs, tmp_path: Path) -> None:
    one, two = dcp.file("1.json", fields("a")), dcp.file("2.json", fields("a", "b"))
    made = json.loads(dcp("schema", "create", "orders", one, "--json"))
    schema_id = made["schemaId"]
    assert (made["version"], made["compatibility"]) == ("1", "BACKWARD")
    assert made["createdBy"].startswith("user ")
    breaking = dcp.file("3.json", fields("a", "c", required=True))
    tried = dcp("schema", "check", schema_id, "--file", breaking, code=1)
    assert "'c' is new and required" in tried
    payload = dcp.file("p.json", {"a": "x"})
    tried = json.loads(dcp("schema", "check", schema_id, "--payload", payload, "--json", code=1))
    assert (tried["verdict"], tried["code"]) == ("rejected", "wrong_type")
    refused = dcp("schema", "add-version", schema_id, breaking, code=1)
    assert refused.startswith("error: the new version of schema 'orders' is not BACKWARD")
    assert json.loads(dcp("schema", "add-version", schema_id, two, "--json"))["version"] == "2"
    assert "version   2  BACKWARD  orders  (all event types)" in dcp("schema", "list")
    assert json.loads(dcp("schema", "show", schema_id, "--version", "1"))["version"] == "1"
    assert "field 'b' added" in dcp("schema", "history", schema_id)
    assert len(json.loads(dcp("schema", "history", schema_id, "--json"))) == 2
    source_id = json.loads(dcp("source", "create", "s", "--json"))["sourceId"]
    dcp("schema", "bind", source_id, schema_id)
    [source] = json.loads(dcp("source", "list", "--json"))
    assert (source["schemas"], source["failure"]) == ([f"{schema_id}/2"], None)
    dcp("schema", "bind", source_id, "none")
    [source] = json.loads(dcp("source", "list", "--json"))
    assert source["schemas"] == []


def test_a_failed_source_is_enabled(dcp: Verbs, tmp_path: Path) -> None:
    source_id = json.loads(dcp("source", "create", "s", "--json"))["sourceId"]
    sources = Sources(Database(f"sqlite:///{tmp_path / 'registry.db'}"))
    sources.fail(source_id, "payload.a is 9", at_ms=0)
    assert json.loads(dcp("source", "list", "--json"))[0]["failure"] == "payload.a is 9"
    dcp("source", "enable", source_id)
    assert [s.status for s in sources.list()] == [SourceStatus.ACTIVE]
    assert "there is no source x" in dcp("source", "enable", "x", code=1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is no JSON"),
        ("[]", "expected a JSON object"),
        ('{"fields": [{"name": "a", "type": "NUMBER", "defaultValue": NaN}]}', "is no JSON"),
        ('{"fields": [{"name": "a"}]}', "missing required field `type`"),
    ],
)
def test_a_file_that_is_no_schema_is_one_line_of_error(dcp: Verbs, content: str, says: str) -> None:
    error = dcp("schema", "create", "s", dcp.file("s.json", content), code=1)
    assert says in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_what_is_not_there_is_named(dcp: Verbs) -> None:
    one = dcp.file("1.json", fields("a"))
    for verb in (("show", "x"), ("add-version", "x", one), ("history", "x")):
        assert "there is no schema x; dcp schema list" in dcp("schema", *verb, code=1)
    assert "there is no source x" in dcp("schema", "bind", "x", "none", code=1)
    assert "give --file, --payload" in dcp("schema", "check", "x", code=1)
