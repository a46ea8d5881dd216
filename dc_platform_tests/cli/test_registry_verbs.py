"""`dcp source`, `dcp token` and what all verbs have in common."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dc_platform.registry.database import Database
from dc_platform.registry.metrics import Metrics
from dc_platform.registry.sources import Sources
from dc_platform.registry.tokens import Scope, Tokens


def dcp(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dc_platform.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def registry(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'registry.db'}")


def test_a_source_is_created_while_no_stack_runs(tmp_path: Path, registry: Database) -> None:
    done = dcp(
        *("source", "create", "shop", "--type", "SERVER", "--json", "--data-dir", str(tmp_path))
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made.keys() == {"sourceId", "apiKey"}
    owner = Sources(registry).owner_of(made["apiKey"])
    assert owner is not None
    assert owner.source_id == made["sourceId"]
    listed = json.loads(dcp("source", "list", "--json", "--data-dir", str(tmp_path)).stdout)
    assert [(s["sourceId"], s["name"], s["type"]) for s in listed] == [
        (made["sourceId"], "shop", "SERVER")
    ]
    assert dcp("source", "delete", made["sourceId"], "--data-dir", str(tmp_path)).returncode == 0
    assert Sources(registry).owner_of(made["apiKey"]) is None
    again = dcp("source", "delete", made["sourceId"], "--data-dir", str(tmp_path))
    assert again.returncode == 1
    assert again.stderr == f"error: there is no source {made['sourceId']}\n"


def test_sampling_is_set_and_what_is_no_rule_is_one_line(
    tmp_path: Path, registry: Database
) -> None:
    made = json.loads(dcp("source", "create", "s", "--json", "--data-dir", str(tmp_path)).stdout)
    here = (made["sourceId"], "--data-dir", str(tmp_path))
    done = dcp("source", "sample", *here, "--target", "50", "--event-type", "a=b=0.5", "--json")
    rule = {"targetEventsPerSecond": 50.0, "eventTypes": {"a=b": 0.5}}
    assert json.loads(done.stdout) == rule, done.stderr
    assert Sources(registry).sampling()[made["sourceId"]].stored() == rule
    for wrong in (["--rate", "2"], [], ["--rate", "0.5", "--event-type", "a"]):
        done = dcp("source", "sample", *here, *wrong)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("scope", ["query", "admin"])
def test_a_token_has_its_scope(tmp_path: Path, registry: Database, scope: str) -> None:
    done = dcp("token", "create", "--scope", scope, "--json", "--data-dir", str(tmp_path))
    made = json.loads(done.stdout)
    assert made.keys() == {"token"}
    owner = Tokens(registry).owner_of(made["token"])
    assert owner is not None
    assert owner.scope is Scope(scope)


def test_another_scope_is_refused(tmp_path: Path) -> None:
    done = dcp("token", "create", "--scope", "root", "--data-dir", str(tmp_path))
    assert done.returncode == 2


def test_status_of_nothing_is_exit_code_3(tmp_path: Path) -> None:
    done = dcp("status", "--data-dir", str(tmp_path / "none"))
    assert (done.returncode, done.stderr) == (3, "")
    assert "no stack runs" in done.stdout
    done = dcp("status", "--json", "--data-dir", str(tmp_path / "none"))
    assert done.returncode == 3
    assert json.loads(done.stdout)["pids"] == {}
    assert not (tmp_path / "none").exists()


def test_down_of_nothing_is_no_error(tmp_path: Path) -> None:
    done = dcp("down", "--data-dir", str(tmp_path / "none"))
    assert done.returncode == 0
    assert "no stack runs" in done.stdout


def test_an_error_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.touch()
    done = dcp("token", "create", "--scope", "query", "--data-dir", str(file))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_wrong_setting_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DCP_TOPIC_PARTITIONS", "none")
    done = dcp("up", "--data-dir", str(tmp_path / "stack"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: DCP_TOPIC_PARTITIONS: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "stack").exists()


@pytest.mark.parametrize("detach", [True, False])
def test_a_taken_port_is_named_with_the_remedy(tmp_path: Path, detach: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "stack-config.json").write_text(json.dumps({"ports": {"gateway": port}}))
        done = dcp("up", "--data-dir", str(tmp_path), *(["--detach"] if detach else []))
    assert done.returncode == 1
    # The other ports are the usual ones: one of those may be taken on this machine as well.
    assert re.fullmatch(r"error: port \d+ of \w+ is taken .*--ports auto\n", done.stderr)
    assert not (tmp_path / "logs").exists()


def test_the_command_line_itself_imports_nothing_heavy() -> None:
    code = (
        "import sys; import dc_platform.cli.main;"
        "print([m for m in ('dagster', 'duckdb', 'pyarrow', 'sqlalchemy', 'pydantic', 'kafka',"
        " 'httpx', 'fastapi', 'deltalake', 'jgo') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_metric_is_defined_while_no_stack_runs(tmp_path: Path, registry: Database) -> None:
    def metric(*arguments: str) -> subprocess.CompletedProcess[str]:
        return dcp("metric", *arguments, "--data-dir", str(tmp_path))

    done = metric(
        *("create", "load", "--type", "P99", "--field", "cpu.load", "--event-type", "host"),
        *("--dimension", "region", "--dimension", "metadata.tags.zone", "--json"),
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    found = Metrics(registry).get("load")
    assert found is not None
    assert made == found.shown()
    assert made["dimensions"] == ["region", "metadata.tags.zone"]
    assert json.loads(metric("show", "load", "--json").stdout) == made
    assert metric("list").stdout == (
        "load  P99(cpu.load) where eventType = host by region, metadata.tags.zone\n"
    )
    wrong = metric("create", "rate", "--type", "SUM")
    assert (wrong.returncode, wrong.stderr) == (1, "error: field: SUM needs one, as in duration\n")
    assert metric("delete", "load").stdout == "metric load is deleted\n"
    again = metric("delete", "load")
    assert (again.returncode, again.stderr) == (
        *(1, "error: there is no metric load; dcp metric list shows all\n"),
    )
