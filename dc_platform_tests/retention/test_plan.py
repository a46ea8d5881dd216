"""The dry run says what the run then does; over HTTP and on the command line, too."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from dc_platform.cli.main import app as cli
from dc_platform.contracts.ops_tables import DELETIONS
from dc_platform.contracts.tables import SILVER_EVENTS
from dc_platform.lake.store import Lake
from dc_platform.registry.access import TokenRing
from dc_platform.registry.database import Database
from dc_platform.registry.retention import Kind, Retention
from dc_platform.registry.tokens import Scope, Tokens
from dc_platform.retention.run import RetentionRun
from dc_platform.serving import admin, refusals
from dc_platform.serving.turns import Turns
from dc_platform_tests.helpers.asgi import request
from dc_platform_tests.helpers.lake import read_table
from dc_platform_tests.helpers.retention import policies, registry, run_of
from dc_platform_tests.retention.test_deletion import land, records


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(str(tmp_path / "lake"))
    land(made, records())
    return made


@pytest.fixture
def retention(tmp_path: Path) -> Retention:
    return registry(tmp_path)


def deleted(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int, int]]:
    """Table → (rows, files, bytes) that a plan deletes."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        if row["action"] == "delete":
            for number, name in enumerate(("rows", "files", "bytes")):
                sums[row["table"]][number] += row[name]
    return {name: (figures[0], figures[1], figures[2]) for name, figures in sums.items()}


@pytest.mark.usefixtures("lake")
def test_the_dry_run_says_what_the_run_then_deletes(tmp_path: Path, retention: Retention) -> None:
    run = run_of(tmp_path, retention)
    assert run.plan() == []
    policies(retention, {"*": 30, "audit": 365})
    planned = deleted([vars(p) for p in run.plan()])
    assert retention.floors().highest(1 << 60) is None
    [outcome] = run.run(who="test", at_once=True)
    done = {name: (e.rows, e.files, e.bytes) for name, e in outcome.erased.items() if e.rows}
    assert planned == done
    assert planned[SILVER_EVENTS.name][:2] == (3, 2)
    assert deleted([vars(p) for p in run.plan()]) == {}


class Serving:
    """Serving's admin routes over a lake and a registry."""

    def __init__(self, retention: Retention, run: RetentionRun) -> None:
        database: Database = retention._database
        self._app = FastAPI()
        self._app.include_router(admin.router)
        refusals.install(self._app)
        self._app.state.retention, self._app.state.retention_run = retention, run
        self._app.state.turns = Turns(running=1, per_tenant=1, seconds=10)
        self._app.state.tokens = TokenRing(Tokens(database), seconds=2.0)
        self._tokens = Tokens(database)

    def ask(self, method: str, path: str, *, scope: Scope = Scope.ADMIN, **options: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._tokens.create(scope)}"}
        return request(self._app, method, f"/api/v1/admin{path}", headers=headers, **options)


@pytest.mark.usefixtures("lake")
def test_dry_runs_and_deletions_over_http(tmp_path: Path, retention: Retention) -> None:
    run = run_of(tmp_path, retention)
    serving = Serving(retention, run)
    tried = {"dataType": "*", "retentionDays": 30, "archiveAfterDays": 10}
    answer = serving.ask("POST", "/retention-policy/dry-run", json=tried).json()
    # Without the policy of `audit` its events would go, too.
    assert deleted(answer["planned"])[SILVER_EVENTS.name][0] == 5
    assert {row["tier"] for row in answer["now"]} == {"hot", "warm", "cold"}
    assert serving.ask("POST", "/retention-policy/dry-run").json()["planned"] == []
    assert retention.policies() == []
    asked = serving.ask("POST", "/deletions", json={"field": "n", "value": "5", "atOnce": True})
    assert asked.status_code == 202
    path = f"/deletions/{asked.json()['deletionId']}"
    assert serving.ask("GET", path).json()["state"] == "requested"
    [pending] = retention.pending()
    assert (pending.kind, pending.tenant_id) == (Kind.PERSON, "default")
    # Kafka is not here: nothing is under way.
    retention.change_predicate(pending.deletion_id, {**pending.predicate, "ends": {}})
    run.run(who="test")
    shown = serving.ask("GET", path).json()
    assert shown["state"] == "finished"
    assert shown["proof"]["found"] == []
    assert {t["table"]: t["rows"] for t in shown["tables"]}[SILVER_EVENTS.name] == 1
    assert serving.ask("GET", "/deletions").json() == {
        "pending": [],
        "finished": [pending.deletion_id],
    }
    assert serving.ask("GET", "/deletions/none").status_code == 404
    assert serving.ask("GET", "/deletions", scope=Scope.QUERY).status_code == 403
    for body in ({"field": "n"}, {"field": 'a"b', "value": "1"}, {"field": "a..b", "value": "1"}):
        assert serving.ask("POST", "/deletions", json=body).status_code == 422


@pytest.mark.usefixtures("lake")
def test_the_command_line(tmp_path: Path, retention: Retention) -> None:
    def dcp(*arguments: str) -> SimpleNamespace:
        options = ["--data-dir", str(tmp_path)]
        done = CliRunner().invoke(cli, ["retention", *arguments, *options], catch_exceptions=False)
        return SimpleNamespace(code=done.exit_code, text=done.stdout)

    made = dcp("set", "*", "--retention-days", "30", "--archive-after-days", "20", "--json")
    policy = json.loads(made.text)["policyId"]
    assert [p.policy_id for p in retention.policies()] == [policy]
    assert policy in dcp("list").text
    planned = json.loads(dcp("plan", "--json").text)["planned"]
    assert deleted(planned)[SILVER_EVENTS.name][0] == 5
    assert "delete 5 rows of silver.events (hot)" in dcp("plan").text
    [deletion] = json.loads(dcp("run", "--at-once", "--json").text)["deletions"]
    assert deletion["waits"] is None
    [row, *_] = json.loads(dcp("proof", deletion["deletionId"]).text)
    assert json.loads(row["proof"])["found"] == []
    assert len(read_table(Lake(str(tmp_path / "lake")), DELETIONS, "rows")) == 3
    assert "has ended" in dcp("end", policy).text
    assert "0 deletions" in dcp("run").text
